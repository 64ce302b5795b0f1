"""Payloads become one result per item, with a predictor whose scores tell pictures apart."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from model.artifact.card import ArtifactFile, Card, VariantName
from model.engines.prediction import Prediction
from model.images.decode import PREPROCESSING
from worker.jobs.items import Rejection, RejectionCode, Stage
from worker.scoring.classify import Limits, LoadedPayload, classify

LIMITS = Limits(batch_size=4, max_pixels=1_000_000)


class BrightnessPredictor:
    """Scores an image by its mean brightness; records the size of each batch."""

    card = Card(
        name="brightness",
        version="1",
        labels=("bright",),
        thresholds=(0.5,),
        activation="sigmoid",
        input_size=(8, 8),
        preprocessing=PREPROCESSING,
        files={"litert": ArtifactFile(path="model.tflite", sha256="0" * 64, bytes=1)},
        memory_bytes=1,
        created=date(2026, 1, 1),
    )

    variant: VariantName = "int8"
    batched = False
    picture_ms = None

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def warm_up(self) -> None:
        """Do nothing."""

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """See `Predictor.predict`."""
        self.sizes.append(len(images))
        return [Prediction((float(image.mean()) / 255,)) for image in images]


class BrokenAt(BrightnessPredictor):
    """Fails a forward pass with an image of one brightness."""

    def __init__(self, brightness: int) -> None:
        super().__init__()
        self._brightness = brightness

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """See `Predictor.predict`."""
        if any(int(image.mean()) == self._brightness for image in images):
            raise RuntimeError("the forward pass failed")
        return super().predict(images)


def grey(brightness: int) -> bytes:
    target = io.BytesIO()
    Image.new("RGB", (16, 16), (brightness,) * 3).save(target, "PNG")
    return target.getvalue()


def test_items_that_arrive_in_any_order_get_their_own_scores() -> None:
    order = [7, 2, 9, 0, 4, 1, 8, 3, 6, 5]
    payloads = [
        LoadedPayload(position, grey(position * 20), fetch_ms=position) for position in order
    ]
    predictor = BrightnessPredictor()
    results = classify(payloads, 10, predictor, LIMITS)
    assert [round((result.scores or (9,))[0] * 255) for result in results] == list(
        range(0, 200, 20)
    )
    assert [result.timings.fetch_ms for result in results] == list(range(10))
    assert predictor.sizes == [4, 4, 2]


def test_a_bad_item_becomes_a_rejection_and_others_are_scored() -> None:
    timed_out = Rejection(RejectionCode.FETCH_TIMEOUT, Stage.FETCH, True, "no answer in 15 s")
    contents: list[bytes | Rejection] = [
        grey(10),
        b"not a picture",
        timed_out,
        grey(40)[:60],
        grey(50),
    ]
    payloads = [LoadedPayload(position, payload) for position, payload in enumerate(contents)]
    results = classify(payloads, 5, BrightnessPredictor(), LIMITS)
    codes = [result.rejection and result.rejection.code for result in results]
    assert codes == [None, "not_an_image", "fetch_timeout", "truncated", None]
    for result in results:
        assert (result.scores is None) == (result.rejection is not None)
    assert results[1].image is not None
    assert results[1].image.byte_count == 13
    assert results[2].image is None


def test_a_failed_forward_pass_rejects_only_the_item_that_fails_alone() -> None:
    payloads = [LoadedPayload(position, grey(position * 20)) for position in range(6)]
    results = classify(payloads, 6, BrokenAt(60), LIMITS)
    codes = [result.rejection and result.rejection.code for result in results]
    assert codes == [None, None, None, "model_error", None, None]
    assert results[3].scores is None
    assert results[4].scores is not None


def test_an_image_with_more_pixels_than_the_limit_is_rejected() -> None:
    limits = Limits(batch_size=1, max_pixels=255)
    (result,) = classify([LoadedPayload(0, grey(1))], 1, BrightnessPredictor(), limits)
    assert result.rejection is not None
    assert result.rejection.code is RejectionCode.TOO_MANY_PIXELS


def test_each_item_of_a_batch_of_one_is_decoded_and_scored_in_its_own_context() -> None:
    seen: list[tuple[str, int, int]] = []
    predictor = BrightnessPredictor()

    @contextmanager
    def context(position: int) -> Iterator[None]:
        seen.append(("in", position, len(predictor.sizes)))
        yield
        seen.append(("out", position, len(predictor.sizes)))

    payloads = [LoadedPayload(position, grey(position)) for position in (2, 0, 1)]
    limits = Limits(batch_size=1, max_pixels=1000)
    classify(payloads, 3, predictor, limits, context)
    assert seen == [
        ("in", 2, 0),
        ("out", 2, 1),
        ("in", 0, 1),
        ("out", 0, 2),
        ("in", 1, 2),
        ("out", 1, 3),
    ]


@pytest.mark.parametrize("positions", [[0, 0], [0], []])
def test_an_item_that_arrives_twice_or_never_raises(positions: list[int]) -> None:
    payloads = [LoadedPayload(position, grey(1)) for position in positions]
    with pytest.raises(ValueError, match="arrived"):
        classify(payloads, 2, BrightnessPredictor(), LIMITS)
