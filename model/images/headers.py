"""Reads from the header of a payload what decoding it needs, before any decoder runs.

Pillow parses headers in Python, and keeps and allocates what it finds on the way. Therefore the
numbers of their parts are limited here first, far above what cameras and programs write.
tests/model/images/test_memory_budget.py compares the memory figures with what a process uses.
"""

import math
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from model.images.result import ImageFault, ImageRejected

# Segments, chunks, blocks, or strips of one file. Each costs Pillow some microseconds and bytes.
MAX_PARTS = 50_000
# Tiles and other items of an AVIF or HEIC, as libheif allows. In libavif, the time that they take
# grows with the square of their number.
MAX_ITEMS = 1000
# The boxes that say where the items of an AVIF or HEIC are and what belongs to them. They can name
# more items than there are, and libavif searches all for each.
MAX_INDEX_BYTES = 100_000
# Of a JPEG, in all and in a scan.
MAX_COMPONENTS = 4
# Text and profile chunks of a PNG: Pillow inflates up to 1 MB of each, even if it rejects it.
MAX_TEXT_CHUNKS = 100
# Pillow makes Python objects of the numbers in EXIF: forty bytes for each two.
MAX_EXIF_BYTES = 2_000_000
# Of a JPEG: Pillow copies what it has of EXIF for each further segment. A segment has 65,533 bytes.
MAX_EXIF_PARTS = 100
# Scans of a JPEG of the maximum number of pixels; smaller ones may have more. Each can cover all
# pixels again and take hardly any bytes. Usual are ten, or eighteen in CMYK.
MAX_SCANNED = 20
# Pillow decodes run-length encoded BMPs in Python.
MAX_RLE_SIZE = 10_000_000

# A tile of at most a million pixels, while it is converted to 8-bit RGB.
_TILE_PIXELS, _TILE_BYTES = 1_048_576, 16
# The most that Pillow keeps of the texts in a PNG, at four bytes a character.
_PNG_TEXT_BYTES = 4 * 16_000_000
# Per pixel.
_TIFF_BYTES, _DEEP_TIFF_BYTES, _AVIF_BYTES, _DEEP_AVIF_BYTES, _WEBP_BYTES = 8, 16, 13, 20, 16
_HEIF_BYTES, _JPEG2000_BYTES = 16, 8
_SANDBOX_SLACK_BYTES = 64_000_000


@dataclass(frozen=True)
class DecodeRequirements:
    """Size of a picture in pixels, and bytes that decoding it needs at its peak."""

    width: int
    height: int
    memory_bytes: int


def read_requirements(
    format_: str, payload: bytes, side: int, max_pixels: int
) -> DecodeRequirements:
    """Read what decoding a payload of one of Pillow's formats needs; 0 x 0 if it is truncated.

    `side` is the smallest width and height, in pixels, that a JPEG may be reduced to by its
    decoder.

    Raises:
        ImageRejected: the picture has more than `max_pixels`, or exceeds one of the limits above.
    """
    try:
        width, height, size_bytes = _READERS[format_](payload, side, max_pixels)
    except (struct.error, ValueError, IndexError, OverflowError):
        width, height, size_bytes = 0, 0, _SANDBOX_SLACK_BYTES
    if width * height > max_pixels:
        raise too_many_pixels(width, height, max_pixels)
    size_bytes += _TILE_BYTES * min(width * height, _TILE_PIXELS) + 2 * len(payload)
    return DecodeRequirements(width, height, size_bytes)


def too_many_pixels(width: int, height: int, max_pixels: int) -> ImageRejected:
    """The rejection of a picture that has more than `max_pixels`."""
    return ImageRejected(
        ImageFault.TOO_MANY_PIXELS, f"{width} x {height} pixels, {max_pixels} are allowed"
    )


def check_exif(size_bytes: int) -> None:
    """Raise ImageRejected if there is more EXIF than MAX_EXIF_BYTES."""
    if size_bytes > MAX_EXIF_BYTES:
        raise ImageRejected(
            ImageFault.DECODE_FAILED, f"{size_bytes} bytes of EXIF, {MAX_EXIF_BYTES} are allowed"
        )


def _check_parts(count: int, parts: str, most: int = MAX_PARTS) -> None:
    if count > most:
        raise ImageRejected(ImageFault.DECODE_FAILED, f"more than {most} {parts}")


# Width and height in pixels, and bytes that are needed at the peak beside the payload.
_Size = tuple[int, int, int]

# Not stuffed bytes and restart markers, which occur within the entropy-coded data of a scan.
MARKER = re.compile(rb"\xff([^\x00\xff\xd0-\xd7])")
NO_SEGMENT = frozenset({0x01, 0xD8})
FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
SCAN, _END, _EXIF = 0xDA, 0xD9, 0xE1
_PROGRESSIVE = 0xC2


def _jpeg(payload: bytes, side: int, max_pixels: int) -> _Size:
    width = height = parts = scans = exif_parts = exif_bytes = 0
    sampling: list[int] = []  # a byte a component: horizontal factor, vertical factor
    buffered = False  # the decoder keeps all coefficients until the last scan
    at = 2
    while marker := MARKER.search(payload, at):
        # Before the first scan, Pillow skips junk byte by byte.
        parts += 1 if scans else 1 + (marker.end() - at) // 100
        code, at = marker[1][0], marker.end()
        _check_parts(parts, "segments")
        if code == _END:
            break
        if code in NO_SEGMENT:
            continue
        (length,) = struct.unpack_from(">H", payload, at)
        if code in FRAMES:
            height, width, count = struct.unpack_from(">HHB", payload, at + 3)
            sampling = [
                payload[at + 9 + 3 * component] for component in range(min(count, MAX_COMPONENTS))
            ]
            buffered = code >= _PROGRESSIVE
        elif code == _EXIF and payload.startswith(b"Exif\0\0", at + 2):
            exif_parts, exif_bytes = exif_parts + 1, exif_bytes + length
            _check_parts(exif_parts, "segments of EXIF", MAX_EXIF_PARTS)
        elif code == SCAN:
            scans += 1
            buffered = buffered or payload[at + 2] < len(sampling)
            if width * height * scans > MAX_SCANNED * max_pixels and width * height <= max_pixels:
                raise ImageRejected(
                    ImageFault.TOO_MANY_PIXELS,
                    f"{width} x {height} pixels in more than {scans - 1} scans",
                )
            if not buffered:
                break
        at += max(length, 2)
    check_exif(exif_bytes)
    reduction = max((n for n in (1, 2, 4, 8) if n <= min(width, height) // side), default=1)
    size_bytes = 4 * (width // reduction + 1) * (height // reduction + 1)
    if buffered and sampling:
        factors = [(max(byte >> 4, 1), max(byte & 15, 1)) for byte in sampling]
        largest = max(across for across, _ in factors) * max(down for _, down in factors)
        samples = sum(across * down for across, down in factors)
        size_bytes += 2 * (width + 64) * (height + 64) * samples // largest
    return width, height, size_bytes


def _png(payload: bytes, _side: int, _max_pixels: int) -> _Size:
    width, height, bits, colour_type = struct.unpack_from(">IIBB", payload, 16)
    at, parts, texts, text_bytes = 8, 0, 0, 0
    while at + 8 <= len(payload):
        length, name = struct.unpack_from(">I4s", payload, at)
        at += length + 12
        parts += 1
        _check_parts(parts, "chunks")
        texts += name in (b"iCCP", b"zTXt", b"iTXt")
        _check_parts(texts, "text and profile chunks", MAX_TEXT_CHUNKS)
        if name in (b"zTXt", b"iTXt", b"tEXt"):
            text_bytes = _PNG_TEXT_BYTES
    # Colours of 16 bits may be read twice, four bytes a pixel each time.
    depth = {0: 2 if bits == 16 else 1, 3: 1}.get(colour_type, 8 if bits == 16 else 4)
    return width, height, depth * width * height + text_bytes


_GIF_COMMENT, _GIF_APPLICATION = 0xFE, 0xFF
_GIF_LOOP = b"NETSCAPE2.0"


def _gif(payload: bytes, _side: int, _max_pixels: int) -> _Size:
    width, height, flags = struct.unpack_from("<HHB", payload, 6)
    at = 13 + (3 << ((flags & 7) + 1) if flags & 0x80 else 0)
    parts, in_blocks = 0, False
    while in_blocks or payload[at] != ord(","):
        parts += 1
        _check_parts(parts, "blocks before the first frame")
        if in_blocks:
            in_blocks = payload[at] > 0
            at += 1 + payload[at]
        elif payload[at] == ord("!"):
            label, at = payload[at + 1], at + 2
            block = payload[at + 1 : at + 1 + payload[at]]
            if label == _GIF_APPLICATION and block.startswith(_GIF_LOOP):
                at += 1 + len(block)
            # Pillow continues behind an empty first block, and behind an empty loop count.
            if label != _GIF_COMMENT and payload[at] == 0:
                at += 1
            in_blocks = True
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
            f"{width} x {height} pixels and {len(payload)} bytes, run-length encoded; "
            f"a sum of {MAX_RLE_SIZE} is allowed",
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
    is_deep = False
    word, value_at = ("Q", 12) if big else ("I", 8)
    _check_parts(count, "tags")
    for _ in range(count):
        tag, kind = struct.unpack_from(f"{order}HH", payload, at)
        if tag in sides:
            number = {3: "H", 16: "Q"}.get(kind, "I")
            (sides[tag],) = struct.unpack_from(order + number, payload, at + value_at)
        elif tag in (273, 324):  # where the strips or tiles are
            (parts,) = struct.unpack_from(order + word, payload, at + 4)
            _check_parts(parts, "strips or tiles")
        elif tag == 258:  # bits of the first sample; those of three colours are somewhere else
            (samples,) = struct.unpack_from(order + word, payload, at + 4)
            if samples >= 3:
                place = at + value_at
                if not big or samples > 4:
                    (place,) = struct.unpack_from(order + word, payload, place)
                is_deep = struct.unpack_from(f"{order}H", payload, place)[0] > 8
        at += 20 if big else 12
    width, height = sides.values()
    depth = _DEEP_TIFF_BYTES if is_deep else _TIFF_BYTES
    return width, height, depth * width * height + _SANDBOX_SLACK_BYTES


_INDEX_BOXES = frozenset({b"iloc", b"iref", b"ipma"})
# Bytes between the head of a box and the boxes in it.
_NESTED_AFTER = {b"meta": 4, b"iprp": 0}


def _check_boxes(payload: bytes) -> None:
    parts, todo = 0, [(0, len(payload))]
    while todo:
        at, end = todo.pop()
        while at + 8 <= end:
            size, name = struct.unpack_from(">I4s", payload, at)
            head = 8
            if size == 1:
                (size,) = struct.unpack_from(">Q", payload, at + 8)
                head = 16
            size = min(size or end, end - at)
            parts += 1
            _check_parts(parts, "boxes")
            if name in _NESTED_AFTER:
                todo.append((at + head + _NESTED_AFTER[name], at + size))
            elif name in _INDEX_BOXES:
                _check_parts(size, f"bytes in a box {name.decode()}", MAX_INDEX_BYTES)
            at += max(size, head)


_IMAGE_SIZE = re.compile(rb"ispe\0{4}(.{4})(.{4})", re.DOTALL)
_DEEP = re.compile(rb"av1C..[\x40-\x7f\xc0-\xff]", re.DOTALL)


def _avif(payload: bytes, _side: int, _max_pixels: int) -> _Size:
    _check_boxes(payload)
    _check_parts(payload.count(b"infe"), "items", MAX_ITEMS)
    width = height = 0
    for count, box in enumerate(_IMAGE_SIZE.finditer(payload)):
        _check_parts(count, "sizes")
        size = int.from_bytes(box[1], "big"), int.from_bytes(box[2], "big")
        width, height = max((width, height), size, key=math.prod)
    depth = _DEEP_AVIF_BYTES if _DEEP.search(payload) else _AVIF_BYTES
    return width, height, depth * width * height + _SANDBOX_SLACK_BYTES


def _heif(payload: bytes, side: int, max_pixels: int) -> _Size:
    width, height, size_bytes = _avif(payload, side, max_pixels)
    return width, height, size_bytes + (_HEIF_BYTES - _AVIF_BYTES) * width * height


def _jpeg2000(payload: bytes, _side: int, _max_pixels: int) -> _Size:
    at = payload.index(b"\xff\x4f\xff\x51") + 8
    right, bottom, left, top = struct.unpack_from(">IIII", payload, at)
    (components,) = struct.unpack_from(">H", payload, at + 32)
    width, height = max(right - left, 0), max(bottom - top, 0)
    return width, height, (_JPEG2000_BYTES + 5 * min(components, 4)) * width * height


_READERS: dict[str, Callable[[bytes, int, int], _Size]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "BMP": _bmp,
    "WEBP": _webp,
    "TIFF": _tiff,
    "AVIF": _avif,
    "HEIF": _heif,
    "JPEG2000": _jpeg2000,
}
