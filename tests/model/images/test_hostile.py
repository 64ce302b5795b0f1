"""Every hostile or damaged picture is decoded, or rejected with a fitting code."""

import contextlib
import time

import pytest

from model.images.decode import decode
from model.images.headers import read_requirements
from model.images.result import ImageRejected
from model.images.signatures import detect_format
from tests import hostile

# As in a worker: warnings of Pillow are ignored.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

# For one picture on a machine under load; alone, each takes less than a second.
DEADLINE_S = 30


def fault(payload: bytes) -> str:
    started = time.monotonic()
    with pytest.raises(ImageRejected) as caught:
        decode(payload)
    assert time.monotonic() - started < DEADLINE_S
    assert caught.value.detail
    return caught.value.code


@pytest.mark.parametrize("name", hostile.REJECTED)
def test_a_hostile_picture_is_rejected_with_a_fitting_code(name: str) -> None:
    codes, make = hostile.REJECTED[name]
    assert fault(make()) in codes


@pytest.mark.parametrize(
    "name",
    [
        *("png with 2,000 profiles of 1 MB", "png with 2,000 texts that are not UTF-8"),
        *("png with 60,000 chunks", "jpeg of 20,000 scans", "jpeg with 60,000 segments"),
        *("gif with a comment of 60,000 blocks", "gif that hides 60,000 blocks"),
        "gif that hides a large frame behind an empty block",
        "gif that hides a large frame behind an empty loop count",
        *("bmp of run lengths, large", "tiff of 60,000 strips", "tiff of 60,000 tiles"),
        *("avif of 40,000 tiles", "avif with 200,000 references", "avif of 60,000 boxes"),
        *("avif with properties of 900,000 items", "avif with the places of 400,000 items"),
    ],
)
def test_what_a_header_counts_is_refused_before_decoding(name: str) -> None:
    payload = hostile.REJECTED[name][1]()
    with pytest.raises(ImageRejected, match=r"more than|allowed"):
        read_requirements(detect_format(payload) or "", payload, 224, 50_000_000)


@pytest.mark.parametrize("name", hostile.SCORED)
def test_an_irregular_picture_is_decoded(name: str) -> None:
    payload = hostile.SCORED[name]()
    started = time.monotonic()
    assert decode(payload).pixels.shape == (224, 224, 3)
    assert time.monotonic() - started < DEADLINE_S


def test_pictures_of_other_formats_reach_no_decoder_of_pillow() -> None:
    kinds = dict(hostile.other_kinds())
    assert len(kinds) > 10
    for kind, payload in kinds.items():
        assert fault(payload) in {"not_an_image", "unsupported_format"}, kind


def test_damaged_pictures_are_decoded_or_rejected() -> None:
    decoded = 0
    for payload in hostile.mutants(seed=4, count=700):
        started = time.monotonic()
        with contextlib.suppress(ImageRejected):
            assert decode(payload, max_pixels=4_000_000).pixels.shape == (224, 224, 3)
            decoded += 1
        assert time.monotonic() - started < DEADLINE_S
    assert 50 < decoded < 650, "too few or too many mutants can be decoded"


def test_a_run_of_ff_bytes_is_read_in_linear_time() -> None:
    run = b"\xff\xd8" + b"\xff" * 1_000_000
    started = time.monotonic()
    with pytest.raises(ImageRejected):
        decode(run + b"\x00")
    assert time.monotonic() - started < DEADLINE_S  # quadratic: over an hour
