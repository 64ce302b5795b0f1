"""The child process of `model.images.sandbox`: decodes each picture within limits of its own."""

import contextlib
import json
import os
import resource
import signal
import sys
from pathlib import Path

from PIL import AvifImagePlugin

from model.images.decode import decode_here
from model.images.result import ImageFault, ImageRejected
from model.images.sandbox import REPLY, REQUEST, TIMEOUT_S

# Each further thread would need memory of its own.
THREADS = 2
# What a decoder reserves beside the memory that its picture needs, most of it never used.
RESERVED_BYTES = 64_000_000


def main() -> None:
    """Answer requests on standard input until the parent closes it."""
    # Ctrl-C and SIGTERM are meant for the parent, which finishes its pictures first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Ends the process even in the middle of C code.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    AvifImagePlugin.DEFAULT_MAX_THREADS = THREADS
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # Discards what C libraries print; Python's own errors still reach the log of the parent.
    sys.stderr = os.fdopen(os.dup(2), "w")
    with Path(os.devnull).open("w") as devnull:
        os.dup2(devnull.fileno(), 1)
        os.dup2(devnull.fileno(), 2)
    while len(request := sys.stdin.buffer.read(REQUEST.size)) == REQUEST.size:
        length, height, width, max_pixels, memory_bytes = REQUEST.unpack(request)
        signal.alarm(TIMEOUT_S)
        kept_bytes = _limit_memory(memory_bytes)
        payload = sys.stdin.buffer.read(length)
        replies.write(_reply(payload, (height, width), max_pixels, kept_bytes))
        replies.flush()
        signal.alarm(0)


def _reply(payload: bytes, size: tuple[int, int], max_pixels: int, kept_bytes: int) -> bytes:
    pixels = b""
    answer: dict[str, str | int]
    try:
        image = decode_here(payload, size, max_pixels)
        pixels = image.pixels.tobytes()
        answer = {"format": image.format, "width": image.width, "height": image.height}
    except ImageRejected as error:
        answer = {"code": error.code, "detail": error.detail}
    except MemoryError:
        detail = "decoding needs more memory than a picture of its size should"
        answer = {"code": ImageFault.DECODE_FAILED, "detail": detail}
    header = json.dumps({**answer, "kept_bytes": kept_bytes}).encode()
    return REPLY.pack(len(header)) + header + pixels


def _limit_memory(size_bytes: int) -> int:
    """Let this process use about `size_bytes` more than it does now, and return what is resident.

    Only effective on Linux; returns 0 elsewhere.
    """
    resident_bytes = 0
    with contextlib.suppress(OSError, ValueError):
        pages, resident = map(int, Path("/proc/self/statm").read_text().split()[:2])
        resident_bytes = resident * resource.getpagesize()
        soft = pages * resource.getpagesize() + size_bytes + RESERVED_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (soft, resource.RLIM_INFINITY))
    return resident_bytes


if __name__ == "__main__":
    main()
