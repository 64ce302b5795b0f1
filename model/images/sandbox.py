"""Decodes pictures in child processes, whose memory and time the operating system limits.

A header does not tell everything that decoding costs: there may be hidden frames, tiles larger than
the picture, colour profiles, and sizes that contradict each other. C code cannot be stopped in a
thread, and a flaw in it reaches no secrets here.
"""

import atexit
import contextlib
import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np

from model.images.result import DecodedImage, ImageFault, ImageRejected

TIMEOUT_S = 20
# Length of the payload, height and width to resize to, maximum pixels, maximum bytes of memory.
REQUEST = struct.Struct(">QIIQQ")
# Length of the JSON that follows.
REPLY = struct.Struct(">I")
# A child that keeps more memory between two pictures is replaced: C libraries leak some of what
# they allocate for damaged pictures.
MOST_KEPT_BYTES = 150_000_000
# Pixels of 224 x 224 fit, so that parent and child need not take turns.
PIPE_BYTES = 1 << 18
ROOT = Path(__file__).resolve().parents[2]


class Sandbox:
    """Child processes, one for each thread that decodes at the same time, kept for the next one."""

    def __init__(self) -> None:
        self._idle: list[subprocess.Popen[bytes]] = []
        atexit.register(self.close)

    def decode(
        self, payload: bytes, size: tuple[int, int], max_pixels: int, memory_bytes: int
    ) -> DecodedImage:
        """Decode a picture in a child that decodes no other one meanwhile.

        Raises:
            ImageRejected: it cannot be decoded, or not within `memory_bytes` and TIMEOUT_S.
        """
        request = REQUEST.pack(len(payload), *size, max_pixels, memory_bytes)
        child = self._take_idle() or _start_child()
        if (answer := _ask(child, request, payload, size)) is None and _was_killed(child):
            # By something outside, as when the machine is out of memory: perhaps not the picture's
            # fault.
            child = _start_child()
            answer = _ask(child, request, payload, size)
        if answer is None:
            reason = f"the decoder died with exit code {child.returncode}"
            if child.returncode == -signal.SIGALRM:
                reason = f"decoding takes more than {TIMEOUT_S} s"
            raise ImageRejected(ImageFault.DECODE_FAILED, reason)
        if child.poll() is None:
            self._idle.append(child)
        if isinstance(answer, ImageRejected):
            raise answer
        return answer

    def close(self) -> None:
        """Stop the children that decode nothing."""
        while self._idle:
            _stop(self._idle.pop())

    def _take_idle(self) -> subprocess.Popen[bytes] | None:
        while True:
            try:
                child = self._idle.pop()
            except IndexError:
                return None
            if child.poll() is None:
                return child
            _stop(child)


def _ask(
    child: subprocess.Popen[bytes], request: bytes, payload: bytes, size: tuple[int, int]
) -> DecodedImage | ImageRejected | None:
    """What the child answers; None if it died instead."""
    assert child.stdin
    assert child.stdout
    try:
        child.stdin.write(request)
        child.stdin.write(payload)
        child.stdin.flush()
        (length,) = REPLY.unpack(child.stdout.read(REPLY.size))
        answer = json.loads(child.stdout.read(length))
        pixels = b"" if "code" in answer else child.stdout.read(size[0] * size[1] * 3)
        if answer.pop("kept_bytes") > MOST_KEPT_BYTES:
            _stop(child)
        if "code" in answer:
            return ImageRejected(ImageFault(answer["code"]), answer["detail"])
        return DecodedImage(np.frombuffer(pixels, np.uint8).reshape(*size, 3), **answer)
    except (OSError, struct.error, ValueError):
        _stop(child)
        return None


def _was_killed(child: subprocess.Popen[bytes]) -> bool:
    return child.returncode == -signal.SIGKILL


def _stop(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    with contextlib.suppress(OSError):  # bytes that it has not read
        child.communicate()


def _start_child() -> subprocess.Popen[bytes]:
    try:
        return _start_with(PIPE_BYTES)
    except OSError:  # the system limits the pipes of all processes of a user
        return _start_with(-1)


def _start_with(pipe_bytes: int) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "model.images.sandbox_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        pipesize=pipe_bytes,
        cwd=ROOT,
        # No secrets of the parent. One malloc arena, as each reserves 64 MB of the memory limit.
        env={"PATH": os.defpath, "MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
