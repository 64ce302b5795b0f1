"""The child of `model.apart`: decodes the pictures it is given, each within its own limits."""

import contextlib
import json
import os
import resource
import signal
import sys
from pathlib import Path
from typing import BinaryIO

from PIL import AvifImagePlugin

from model.images.decode import decode_here
from model.images.errors import ImageFault, ImageRejected
from model.images.sandbox import REPLY, REQUEST, TIMEOUT_S

# Each more would take memory of its own.
THREADS = 2


def main() -> None:
    """Answer requests until the parent is gone."""
    # Ctrl-C and SIGTERM are for the parent, which lets us finish.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Ends the process, in the middle of C code too.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    AvifImagePlugin.DEFAULT_MAX_THREADS = THREADS
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What C libraries print of a picture goes nowhere; our own errors go to the log.
    sys.stderr = os.fdopen(os.dup(2), "w")
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 1)
        os.dup2(nowhere.fileno(), 2)
    while len(request := sys.stdin.buffer.read(REQUEST.size)) == REQUEST.size:
        length, height, width, max_pixels, memory_bytes = REQUEST.unpack(request)
        signal.alarm(TIMEOUT_S)
        _bound_memory(memory_bytes)
        payload = sys.stdin.buffer.read(length)
        _answer(replies, payload, (height, width), max_pixels)
        signal.alarm(0)


def _answer(replies: BinaryIO, payload: bytes, size: tuple[int, int], max_pixels: int) -> None:
    pixels = b""
    facts: dict[str, str | int]
    try:
        image = decode_here(payload, size, max_pixels)
        pixels = image.pixels.tobytes()
        facts = {"format": image.format, "width": image.width, "height": image.height}
    except ImageRejected as error:
        facts = {"code": error.code.value, "detail": error.detail}
    except MemoryError:
        detail = "needs more memory than a picture of its size"
        facts = {"code": ImageFault.DECODE_FAILED.value, "detail": detail}
    header = json.dumps(facts).encode()
    replies.write(REPLY.pack(len(header)) + header + pixels)
    replies.flush()


def _bound_memory(size_bytes: int) -> None:
    """Let this process take `size_bytes` more than it has now; only Linux keeps to it."""
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        soft = pages * resource.getpagesize() + size_bytes
        resource.setrlimit(resource.RLIMIT_AS, (soft, resource.RLIM_INFINITY))


if __name__ == "__main__":
    main()
