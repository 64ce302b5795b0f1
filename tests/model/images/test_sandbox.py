"""The process apart: it answers, it is ended when it takes too long, and another replaces it."""

import os
import signal
from pathlib import Path

import pytest

from model.images import sandbox
from model.images.errors import ImageFault, ImageRejected
from model.images.sandbox import Sandbox
from tests.hostile import encode, picture

SIZE = (20, 10)
TIFF = encode(picture(), "TIFF")
PLENTY = 200_000_000


def child_of(process: Sandbox) -> int:
    child = process._child
    assert child
    return child.pid


def test_a_picture_comes_back_and_the_process_is_kept_for_the_next() -> None:
    process = Sandbox()
    reply = process.decode(TIFF, SIZE, 10_000, PLENTY)
    assert (reply.format, reply.width, reply.height, len(reply.pixels)) == ("tiff", 48, 32, 600)
    first = child_of(process)
    with pytest.raises(ImageRejected, match="pixels"):
        process.decode(TIFF, SIZE, 100, PLENTY)
    assert child_of(process) == first
    process.close()


def test_one_that_dies_costs_its_picture_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Sandbox()
    process.decode(TIFF, SIZE, 10_000, PLENTY)
    child = process._child
    assert child
    os.kill(child.pid, signal.SIGSEGV)
    # As if it died in the middle of the picture: nobody looked whether it lives.
    with monkeypatch.context() as patch:
        patch.setattr(child, "poll", lambda: None)
        with pytest.raises(ImageRejected, match="died") as caught:
            process.decode(TIFF, SIZE, 10_000, PLENTY)
    assert caught.value.code == ImageFault.DECODE_FAILED
    assert process.decode(TIFF, SIZE, 10_000, PLENTY).width == 48
    process.close()


def test_one_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    process = Sandbox()
    process.decode(TIFF, SIZE, 10_000, PLENTY)
    child = process._child
    assert child
    os.kill(child.pid, signal.SIGALRM)  # what its own deadline sends
    with monkeypatch.context() as patch:
        patch.setattr(child, "poll", lambda: None)
        with pytest.raises(ImageRejected, match=f"more than {sandbox.TIMEOUT_S} s"):
            process.decode(TIFF, SIZE, 10_000, PLENTY)
    process.close()


def test_one_that_needs_more_than_its_size_accounts_for_is_refused() -> None:
    process = Sandbox()
    large = encode(picture(3000, 2000), "TIFF", compression="tiff_deflate")
    assert process.decode(large, SIZE, 10_000_000, PLENTY).width == 3000
    with pytest.raises(ImageRejected) as caught:
        process.decode(large, SIZE, 10_000_000, 5_000_000)
    assert caught.value.code == ImageFault.DECODE_FAILED
    process.close()


def test_it_is_given_none_of_our_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIQUEUE_REDIS_URL", "redis://:s3cr3t@127.0.0.1/0")
    process = Sandbox()
    process.decode(TIFF, SIZE, 10_000, PLENTY)
    assert b"s3cr3t" not in Path(f"/proc/{child_of(process)}/environ").read_bytes()
    process.close()
