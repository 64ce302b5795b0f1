"""What a payload asks of its decoder, read from its header before any decoder sees it.

Pillow reads headers in Python, keeps what it finds and allocates as it goes. So what a file
may hold of a kind is bounded here first; the bounds are far above what cameras and programs
write. tests/model/images/test_memory_budget.py compares the memory figures
with what a process uses.
"""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from model.images.errors import ImageFault, ImageRejected

# Segments, chunks or blocks of one file. Pillow takes some microseconds and bytes for each.
MAX_PARTS = 50_000
# Pillow turns numbers in EXIF into Python objects, forty bytes for each two.
MAX_EXIF_BYTES = 2_000_000
# A scan of a JPEG may go over all its pixels again, for next to no bytes. A picture of the most
# pixels allowed has ten scans, or eighteen in four inks.
MAX_SCANNED = 20
# Pillow decodes run-length BMPs in Python.
MAX_RLE_SIZE = 10_000_000

# What pieces of at most a million pixels take on their way to 8-bit RGB.
_PIECE_PIXELS, _PIECE_BYTES = 1_048_576, 16
# What Pillow may keep of the texts in a PNG, four bytes a letter.
_PNG_TEXT_BYTES = 4 * 16_000_000
_TIFF_BYTES, _AVIF_BYTES, _DEEP_AVIF_BYTES, _WEBP_BYTES = 8, 13, 20, 16
_APART_SLACK_BYTES = 64_000_000


@dataclass(frozen=True)
class Ask:
    """What a header asks for: pixels of the picture, and bytes at the peak of decoding it."""

    width: int
    height: int
    memory_bytes: int


def read_ask(kind: str, payload: bytes, side: int, max_pixels: int) -> Ask:
    """Read what a payload of one of Pillow's formats asks for; 0 x 0 where its header is cut.

    `side` is the least width and height, in pixels, that it may be shrunk to while decoding.

    Raises:
        ImageRejected: it asks for more than `max_pixels`, or for work without end.
    """
    try:
        width, height, size_bytes = _READERS[kind](payload, side, max_pixels)
    except (struct.error, IndexError, OverflowError):
        width, height, size_bytes = 0, 0, _APART_SLACK_BYTES
    if width * height > max_pixels:
        raise too_many_pixels(width, height, max_pixels)
    size_bytes += _PIECE_BYTES * min(width * height, _PIECE_PIXELS) + 2 * len(payload)
    return Ask(width, height, size_bytes)


def too_many_pixels(width: int, height: int, max_pixels: int) -> ImageRejected:
    """Say that a picture is too large."""
    return ImageRejected(
        ImageFault.TOO_MANY_PIXELS, f"{width} x {height} pixels, {max_pixels} are allowed"
    )


def _overdone(what: str) -> ImageRejected:
    return ImageRejected(ImageFault.DECODE_FAILED, what)


# Width and height in pixels, and bytes beside the payload at the peak.
_Size = tuple[int, int, int]

# Stuffed bytes and restarts stand within the code of a scan.
_MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
_NO_SEGMENT = frozenset({0x01, 0xD8})
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_SCAN, _END, _EXIF = 0xDA, 0xD9, 0xE1
_PROGRESSIVE = 0xC2


def _jpeg(payload: bytes, side: int, max_pixels: int) -> _Size:
    width = height = parts = scans = exif_bytes = 0
    layers: list[int] = []
    whole = False  # kept as coefficients until the last scan
    at = 2
    while marker := _MARKER.search(payload, at):
        parts += 1 if scans else 1 + (marker.end() - at) // 100  # Pillow goes over junk by bytes
        code, at = marker[1][0], marker.end()
        if parts > MAX_PARTS:
            raise _overdone(f"has more than {MAX_PARTS} segments")
        if code == _END:
            break
        if code in _NO_SEGMENT:
            continue
        (length,) = struct.unpack_from(">H", payload, at)
        if code in _FRAMES:
            height, width, count = struct.unpack_from(">HHB", payload, at + 3)
            layers = [payload[at + 9 + 3 * layer] for layer in range(count)]
            whole = code >= _PROGRESSIVE
        elif code == _EXIF and payload.startswith(b"Exif\0\0", at + 2):
            exif_bytes += length
        elif code == _SCAN:
            scans += 1
            whole = whole or payload[at + 2] < len(layers)
            if width * height * scans > MAX_SCANNED * max_pixels and width * height <= max_pixels:
                raise ImageRejected(
                    ImageFault.TOO_MANY_PIXELS,
                    f"{width} x {height} pixels in more than {scans - 1} scans",
                )
            if not whole:
                break
        at += max(length, 2)
    check_exif(exif_bytes)
    shrunk = max((n for n in (1, 2, 4, 8) if n <= min(width, height) // side), default=1)
    size_bytes = 4 * (width // shrunk + 1) * (height // shrunk + 1)
    if whole:
        across = max((max(layer >> 4, 1) for layer in layers), default=1)
        down = max((max(layer & 15, 1) for layer in layers), default=1)
        shares = sum(max(layer >> 4, 1) * max(layer & 15, 1) for layer in layers)
        size_bytes += 2 * (width + 64) * (height + 64) * shares // (across * down)
    return width, height, size_bytes


def check_exif(size_bytes: int) -> None:
    """Refuse what no camera writes.

    Raises:
        ImageRejected: there is too much of it.
    """
    if size_bytes > MAX_EXIF_BYTES:
        raise _overdone(f"carries {size_bytes} bytes of EXIF, {MAX_EXIF_BYTES} are allowed")


def _png(payload: bytes, _side: int, _max_pixels: int) -> _Size:
    width, height, bits, colours = struct.unpack_from(">IIBB", payload, 16)
    at, parts, text_bytes = 8, 0, 0
    while at + 8 <= len(payload):
        length, name = struct.unpack_from(">I4s", payload, at)
        at += length + 12
        parts += 1
        if name in (b"zTXt", b"iTXt", b"tEXt"):
            text_bytes = _PNG_TEXT_BYTES
        if parts > MAX_PARTS:
            raise _overdone(f"has more than {MAX_PARTS} chunks")
    depth = {0: 2 if bits == 16 else 1, 3: 1}.get(colours, 4)
    return width, height, depth * width * height + text_bytes


def _gif(payload: bytes, _side: int, _max_pixels: int) -> _Size:
    width, height, flags = struct.unpack_from("<HHB", payload, 6)
    at = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    parts, in_blocks = 0, False
    while in_blocks or payload[at] != ord(","):
        parts += 1
        if parts > MAX_PARTS:
            raise _overdone(f"has more than {MAX_PARTS} blocks before its first frame")
        if in_blocks:
            in_blocks = payload[at] > 0
            at += 1 + payload[at]
        elif payload[at] == ord("!"):
            # Pillow reads on after a loop count that is missing.
            if payload.startswith(b"\xff\x0bNETSCAPE2.0\0", at + 1):
                at += 13
            in_blocks = True
            at += 2
        else:
            at += 1
    left, top, across, down = struct.unpack_from("<HHHH", payload, at + 1)
    width, height = max(width, left + across), max(height, top + down)
    return width, height, 4 * width * height


def _bmp(payload: bytes, _side: int, _max_pixels: int) -> _Size:
    if payload[14] == 12:
        width, height = struct.unpack_from("<HH", payload, 18)
        return width, height, 4 * width * height
    width, height, _, _, compression = struct.unpack_from("<IiHHI", payload, 18)
    height = abs(height)
    if compression in (1, 2) and width * height + len(payload) > MAX_RLE_SIZE:
        raise ImageRejected(
            ImageFault.TOO_MANY_PIXELS,
            f"{width} x {height} pixels and {len(payload)} bytes of run-length code, "
            f"{MAX_RLE_SIZE} together are allowed",
        )
    return width, height, 4 * width * height


def _webp(payload: bytes, _side: int, _max_pixels: int) -> _Size:
    match payload[12:16]:
        case b"VP8X":
            width = 1 + int.from_bytes(payload[24:27], "little")
            height = 1 + int.from_bytes(payload[27:30], "little")
        case b"VP8L":
            (packed,) = struct.unpack_from("<I", payload, 21)
            width, height = 1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF)
        case _:
            width, height = (n & 0x3FFF for n in struct.unpack_from("<HH", payload, 26))
    return width, height, _WEBP_BYTES * width * height


def _tiff(payload: bytes, _side: int, _max_pixels: int) -> _Size:
    order: Literal["<", ">"] = "<" if payload[:1] == b"I" else ">"
    big = 43 in payload[2:4]
    (at,) = struct.unpack_from(f"{order}Q" if big else f"{order}I", payload, 8 if big else 4)
    (count,) = struct.unpack_from(f"{order}Q" if big else f"{order}H", payload, at)
    at += 8 if big else 2
    sides = {256: 0, 257: 0}
    for _ in range(min(count, MAX_PARTS)):
        tag, kind = struct.unpack_from(f"{order}HH", payload, at)
        if tag in sides:
            number = {3: "H", 16: "Q"}.get(kind, "I")
            (sides[tag],) = struct.unpack_from(order + number, payload, at + (12 if big else 8))
        at += 20 if big else 12
    width, height = sides.values()
    return width, height, _TIFF_BYTES * width * height + _APART_SLACK_BYTES


_IMAGE_SIZE = re.compile(rb"ispe\0{4}(.{4})(.{4})", re.DOTALL)
_DEEP = re.compile(rb"av1C..[\x40-\x7f\xc0-\xff]", re.DOTALL)


def _avif(payload: bytes, _side: int, _max_pixels: int) -> _Size:
    sizes = [
        (int.from_bytes(box[1], "big"), int.from_bytes(box[2], "big"))
        for box in _IMAGE_SIZE.finditer(payload)
    ]
    width, height = max(sizes, key=lambda size: size[0] * size[1], default=(0, 0))
    depth = _DEEP_AVIF_BYTES if _DEEP.search(payload) else _AVIF_BYTES
    return width, height, depth * width * height + _APART_SLACK_BYTES


_READERS: dict[str, Callable[[bytes, int, int], _Size]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "BMP": _bmp,
    "WEBP": _webp,
    "TIFF": _tiff,
    "AVIF": _avif,
}
