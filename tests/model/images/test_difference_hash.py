"""The difference hash of pictures that were changed a little, and of others."""

import io

import numpy as np
from PIL import Image

from model.images.difference_hash import HASH_BYTES, difference_hash


def bits(one: bytes, other: bytes) -> int:
    return (int.from_bytes(one) ^ int.from_bytes(other)).bit_count()


def test_a_picture_keeps_its_hash_when_it_is_compressed_and_others_have_another() -> None:
    random = np.random.default_rng(0)
    first, second = (
        Image.fromarray(random.integers(0, 256, (12, 12, 3), np.uint8)).resize(
            (224, 224), Image.Resampling.BICUBIC
        )
        for _ in range(2)
    )
    made = io.BytesIO()
    first.save(made, "JPEG", quality=40)
    again, others = Image.open(made), np.asarray(second)
    own = difference_hash(np.asarray(first))
    assert len(own) == HASH_BYTES
    assert bits(own, difference_hash(np.asarray(again.convert("RGB")))) <= 4
    assert bits(own, difference_hash(others)) > 16
