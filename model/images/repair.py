"""Tells damage that costs no pixel, and kinds that no decoder reads, from other damage."""

import io
import struct
import zlib
from collections import defaultdict

from PIL import TiffImagePlugin

from model.images.headers import FRAMES, MARKER, MAX_COMPONENTS, MAX_PARTS, NO_SEGMENT, SCAN

_PNG_SIGNATURE_BYTES = 8
_SAMPLE_FORMATS = {2: "signed integer", 3: "floating point", 5: "complex integer", 6: "complex"}
_KIND_LENGTH = 150
# What Pillow raises for a damaged directory.
_DAMAGED = (
    ArithmeticError, AttributeError, LookupError, OSError, SyntaxError, TypeError, ValueError,
    struct.error,
)  # fmt: skip
# Baseline, extended and progressive, with Huffman and with arithmetic coding.
_DECODED_FRAMES = (0xC0, 0xC1, 0xC2, 0xC9, 0xCA)
# The marker that states the height of a JPEG behind its pixels.
_LATE_HEIGHT = b"\xff\xdc"
_WIDTH, _BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLE_FORMAT = 256, 258, 259, 262, 339


def without_damaged_chunks(payload: bytes) -> bytes:
    """A PNG without the ancillary chunks before its pixels whose checksum is wrong.

    As in libpng, such a chunk is ignored, and a critical one stays an error.
    """
    kept, at = [payload[:_PNG_SIGNATURE_BYTES]], _PNG_SIGNATURE_BYTES
    while at + 12 <= len(payload) and payload[at + 4 : at + 8] != b"IDAT":
        end = at + 12 + int.from_bytes(payload[at : at + 4], "big")
        content, checksum = memoryview(payload)[at + 4 : end - 4], payload[end - 4 : end]
        is_critical = payload[at + 4 : at + 5].isupper()
        if is_critical or zlib.crc32(content).to_bytes(4, "big") == checksum:
            kept.append(payload[at:end])
        at = end
    return b"".join([*kept, payload[at:]])


def has_all_scans(payload: bytes) -> bool:
    """Whether a JPEG has, at least in part, the scans that complete all of its coefficients."""
    components: set[int] = set()
    complete: defaultdict[int, set[int]] = defaultdict(set)
    at = 2
    try:
        for _ in range(MAX_PARTS):
            if not (marker := MARKER.search(payload, at)):
                break
            code, at = marker[1][0], marker.end()
            if code in NO_SEGMENT:
                continue
            (length,) = struct.unpack_from(">H", payload, at)
            if code in FRAMES:
                components = {payload[at + 8 + 3 * index] for index in range(payload[at + 7])}
            elif code == SCAN:
                count = payload[at + 2]
                if count > MAX_COMPONENTS:
                    return False
                first, last, approximation = payload[at + 3 + 2 * count : at + 6 + 2 * count]
                for index in range(count if approximation & 15 == 0 else 0):
                    complete[payload[at + 3 + 2 * index]].update(range(first, last + 1))
            at += max(length, 2)
    except (struct.error, IndexError, ValueError):
        return False
    return bool(components) and all(len(complete[one]) >= 64 for one in components)


def jpeg_kind(payload: bytes) -> str | None:
    """What a JPEG is that no decoder reads, for a message; None for other payloads."""
    at = 2
    for _ in range(MAX_PARTS if payload.startswith(b"\xff\xd8") else 0):
        if not (marker := MARKER.search(payload, at)) or marker.end() + 3 > len(payload):
            return None
        code, at = marker[1][0], marker.end()
        if code in FRAMES:
            if code not in _DECODED_FRAMES:
                return "lossless, hierarchical or differential JPEG"
            if payload[at + 3 : at + 5] == b"\0\0" and _LATE_HEIGHT in payload:
                return "JPEG that states its height behind its pixels"
            return f"JPEG with {payload[at + 2]}-bit samples" if payload[at + 2] != 8 else None
        if code not in NO_SEGMENT:
            at += max(int.from_bytes(payload[at : at + 2], "big"), 2)
    return None


def tiff_kind(payload: bytes) -> str | None:
    """What the samples of a TIFF are, for a message; None if its directory is damaged."""
    file = io.BytesIO(payload)
    try:
        tags = TiffImagePlugin.ImageFileDirectory_v2(file.read(16 if 43 in payload[2:4] else 8))
        file.seek(tags.next)
        tags.load(file)
        bits, formats = tags.get(_BITS, (1,)), tags.get(_SAMPLE_FORMAT, (1,))
        if _WIDTH not in tags:
            return None
        samples = _SAMPLE_FORMATS.get(formats[0], "unsigned integer")
        # A hostile tag can be a long text.
        return (
            f"TIFF with {len(bits)} x {bits[0]}-bit {samples} samples (compression "
            f"{tags.get(_COMPRESSION, 1)}, photometric interpretation {tags.get(_PHOTOMETRIC, 0)})"
        )[:_KIND_LENGTH]
    except _DAMAGED:
        return None
