"""The sandbox: it decodes, it stops a child that takes too long, and it starts another."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from model.images import sandbox as sandbox_module
from model.images.result import ImageFault, ImageRejected
from model.images.sandbox import REPLY, TIMEOUT_S, Sandbox
from tests.hostile import encode, picture

SIZE = (20, 10)
TIFF = encode(picture(), "TIFF")
PLENTY = 200_000_000
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    sandbox = Sandbox()
    yield sandbox
    sandbox.close()


def child_of(sandbox: Sandbox) -> subprocess.Popen[bytes]:
    (child,) = sandbox._idle
    return child


def test_a_picture_is_decoded_and_the_child_is_kept_for_the_next(sandbox: Sandbox) -> None:
    image = sandbox.decode(TIFF, SIZE, 10_000, PLENTY)
    assert (image.format, image.width, image.height) == ("tiff", 48, 32)
    assert image.pixels.shape == (*SIZE, 3)
    first = child_of(sandbox).pid
    with pytest.raises(ImageRejected, match="pixels"):
        sandbox.decode(TIFF, SIZE, 100, PLENTY)
    assert child_of(sandbox).pid == first


def test_a_child_that_keeps_too_much_memory_is_replaced(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.decode(TIFF, SIZE, 10_000, PLENTY)
    first = child_of(sandbox)
    resident_bytes = int(Path(f"/proc/{first.pid}/statm").read_text().split()[1]) * PAGE_BYTES
    monkeypatch.setattr(sandbox_module, "MOST_KEPT_BYTES", resident_bytes // 2)
    assert sandbox.decode(TIFF, SIZE, 10_000, PLENTY).pixels.shape == (*SIZE, 3)
    assert first.returncode == -signal.SIGKILL
    assert not sandbox._idle
    monkeypatch.setattr(sandbox_module, "MOST_KEPT_BYTES", 2 * resident_bytes)
    sandbox.decode(TIFF, SIZE, 10_000, PLENTY)
    second = child_of(sandbox)
    with pytest.raises(ImageRejected, match="pixels"):
        sandbox.decode(TIFF, SIZE, 100, PLENTY)
    assert child_of(sandbox) is second


def test_a_system_that_refuses_a_larger_pipe_costs_no_picture(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sandbox_module, "PIPE_BYTES", 2**31 - 1)
    assert sandbox.decode(TIFF, (224, 224), 10_000, PLENTY).pixels.shape == (224, 224, 3)


@pytest.mark.parametrize(
    ("number", "reason"),
    [(signal.SIGSEGV, "died"), (signal.SIGALRM, f"more than {TIMEOUT_S} s")],
    ids=["crash", "timeout"],
)
def test_a_child_that_dies_costs_its_picture_and_no_other(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, number: int, reason: str
) -> None:
    sandbox.decode(TIFF, SIZE, 10_000, PLENTY)
    os.kill(child_of(sandbox).pid, number)
    # As if it died while it decodes: the check before the request finds it alive.
    with monkeypatch.context() as patch:
        patch.setattr(child_of(sandbox), "poll", lambda: None)
        with pytest.raises(ImageRejected, match=reason) as caught:
            sandbox.decode(TIFF, SIZE, 10_000, PLENTY)
    assert caught.value.code == ImageFault.DECODE_FAILED
    assert sandbox.decode(TIFF, SIZE, 10_000, PLENTY).width == 48


def test_a_child_that_is_killed_from_outside_costs_no_picture(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.decode(TIFF, SIZE, 10_000, PLENTY)
    os.kill(child_of(sandbox).pid, signal.SIGKILL)
    with monkeypatch.context() as patch:
        patch.setattr(child_of(sandbox), "poll", lambda: None)
        assert sandbox.decode(TIFF, SIZE, 10_000, PLENTY).width == 48


def test_a_decoder_that_hangs_in_c_code_is_ended_at_the_deadline(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    sandbox.decode(TIFF, SIZE, 10_000, PLENTY)
    # As in the child, but its decoder is one regular expression that takes for ever.
    code = (
        "import os, signal, sys; signal.signal(signal.SIGALRM, signal.SIG_DFL); signal.alarm(1); "
        "re = __import__('re'); re.match(r'(a+)+$', 'a' * 60 + 'b')"
    )
    with monkeypatch.context() as patch:
        patch.setattr(
            sandbox_module,
            "_start_child",
            lambda: subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            ),
        )
        sandbox.close()
        with pytest.raises(ImageRejected, match=f"more than {TIMEOUT_S} s"):
            sandbox.decode(TIFF, SIZE, 10_000, PLENTY)


def test_threads_decode_in_children_of_their_own(sandbox: Sandbox) -> None:
    large = encode(picture(3000, 2000), "PNG")
    with ThreadPoolExecutor(4) as threads:
        jobs = [threads.submit(sandbox.decode, large, SIZE, 10**8, PLENTY) for _ in range(12)]
        assert {job.result().width for job in jobs} == {3000}
    children = [child.pid for child in sandbox._idle]
    assert 1 < len(children) <= 4
    assert len(set(children)) == len(children)


def test_a_child_that_dies_while_it_sends_pixels_costs_its_picture_only(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = b'{"format": "tiff", "width": 48, "height": 32, "kept_bytes": 0}'
    code = f"import os; os.write(1, {REPLY.pack(len(answer)) + answer + b'pixels'!r})"
    with monkeypatch.context() as patch:
        patch.setattr(
            sandbox_module,
            "_start_child",
            lambda: subprocess.Popen(
                [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE
            ),
        )
        with pytest.raises(ImageRejected, match="died"):
            sandbox.decode(TIFF, SIZE, 10_000, PLENTY)
    assert sandbox.decode(TIFF, SIZE, 10_000, PLENTY).width == 48


def test_a_picture_that_needs_more_memory_than_its_size_implies_is_refused(
    sandbox: Sandbox,
) -> None:
    large = encode(picture(6000, 4000), "TIFF", compression="tiff_deflate")
    assert sandbox.decode(large, SIZE, 10**8, PLENTY).width == 6000
    with pytest.raises(ImageRejected) as caught:
        sandbox.decode(large, SIZE, 10**8, 5_000_000)
    assert caught.value.code == ImageFault.DECODE_FAILED


def test_the_child_gets_no_variables_of_our_environment(
    sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIQUEUE_REDIS_URL", "redis://:s3cr3t@127.0.0.1/0")
    sandbox.decode(TIFF, SIZE, 10_000, PLENTY)
    assert b"s3cr3t" not in Path(f"/proc/{child_of(sandbox).pid}/environ").read_bytes()
