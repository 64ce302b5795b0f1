"""Decoding in a process of its own, with its memory and its time bounded by the system.

What a TIFF or an AVIF costs its header does not tell: frames that are never shown, tiles larger
than the picture, sizes that contradict each other. Their C code cannot be stopped in a thread.
"""

import atexit
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from model.images.errors import ImageFault, ImageRejected

TIMEOUT_S = 20
# Length of the payload, height and width to squash to, most pixels, most bytes of memory.
REQUEST = struct.Struct(">QIIQQ")
REPLY = struct.Struct(">I")
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Reply:
    """What `model.cell` answers: facts of the picture, and its RGB bytes row by row."""

    format: str
    width: int
    height: int
    pixels: bytes


class Sandbox:
    """One child process, started at its first picture and again after it died."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    def decode(
        self, payload: bytes, size: tuple[int, int], max_pixels: int, memory_bytes: int
    ) -> Reply:
        """Decode a picture, one at a time; hold `lock` meanwhile.

        Raises:
            ImageRejected: it cannot be decoded, or not within `memory_bytes` and TIMEOUT_S.
        """
        child = self._child
        if child is None or child.poll() is not None:
            child = self._child = _start()
        assert child.stdin
        assert child.stdout
        try:
            child.stdin.write(REQUEST.pack(len(payload), *size, max_pixels, memory_bytes))
            child.stdin.write(payload)
            child.stdin.flush()
            (length,) = REPLY.unpack(child.stdout.read(REPLY.size))
            answer = json.loads(child.stdout.read(length))
        except (OSError, struct.error, ValueError):
            raise self._died() from None
        if "code" in answer:
            raise ImageRejected(ImageFault(answer["code"]), answer["detail"])
        pixels = child.stdout.read(size[0] * size[1] * 3)
        return Reply(answer["format"], answer["width"], answer["height"], pixels)

    def close(self) -> None:
        """End the child, if there is one."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None

    def _died(self) -> ImageRejected:
        assert self._child
        self._child.kill()
        self._child.communicate()
        code, self._child = self._child.returncode, None
        if code == -signal.SIGALRM:
            return ImageRejected(
                ImageFault.DECODE_FAILED, f"takes more than {TIMEOUT_S} s to decode"
            )
        return ImageRejected(ImageFault.DECODE_FAILED, f"its decoder died, exit code {code}")


def _start() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "model.images.sandbox_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        # Nothing of ours that is secret. One arena: each more takes 64 MB of what may be taken.
        env={"PATH": os.defpath, "MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
