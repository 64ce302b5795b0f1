"""Decodes pictures in a child process, whose memory and time the operating system limits.

The header of a TIFF or an AVIF does not tell what decoding costs: there may be hidden frames, tiles
larger than the picture, and sizes that contradict each other. C code cannot be stopped in a thread.
"""

import atexit
import json
import os
import signal
import struct
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np

from model.images.result import DecodedImage, ImageFault, ImageRejected

TIMEOUT_S = 20
# Length of the payload, height and width to resize to, maximum pixels, maximum bytes of memory.
REQUEST = struct.Struct(">QIIQQ")
# Length of the JSON that follows.
REPLY = struct.Struct(">I")
ROOT = Path(__file__).resolve().parents[2]


class Sandbox:
    """One child process, started for the first picture and again after it has died."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    def decode(
        self, payload: bytes, size: tuple[int, int], max_pixels: int, memory_bytes: int
    ) -> DecodedImage:
        """Decode a picture; the caller must hold `lock`.

        Raises:
            ImageRejected: it cannot be decoded, or not within `memory_bytes` and TIMEOUT_S.
        """
        child = self._child
        if child is None or child.poll() is not None:
            child = self._child = _start_child()
        assert child.stdin
        assert child.stdout
        try:
            child.stdin.write(REQUEST.pack(len(payload), *size, max_pixels, memory_bytes))
            child.stdin.write(payload)
            child.stdin.flush()
            (length,) = REPLY.unpack(child.stdout.read(REPLY.size))
            answer = json.loads(child.stdout.read(length))
            if "code" in answer:
                raise ImageRejected(ImageFault(answer["code"]), answer["detail"])
            pixels = np.frombuffer(child.stdout.read(size[0] * size[1] * 3), np.uint8)
            return DecodedImage(pixels.reshape(*size, 3), **answer)
        except (OSError, struct.error, ValueError):
            self.close()
            reason = f"the decoder died with exit code {child.returncode}"
            if child.returncode == -signal.SIGALRM:
                reason = f"decoding takes more than {TIMEOUT_S} s"
            raise ImageRejected(ImageFault.DECODE_FAILED, reason) from None

    def close(self) -> None:
        """Stop the child, if there is one."""
        if self._child is not None:
            self._child.kill()
            self._child.communicate()
            self._child = None


def _start_child() -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "model.images.sandbox_child"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        # No secrets of the parent. One malloc arena, as each reserves 64 MB of the memory limit.
        env={"PATH": os.defpath, "MALLOC_ARENA_MAX": "1", "OPENBLAS_NUM_THREADS": "1"},
    )
