"""Writes kinds of TIFF that Pillow cannot write."""

import struct
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Names of tags that tests set.
DESCRIPTION, MIN_VALUE, MAX_VALUE, SIGNED_MIN, SIGNED_MAX, EXTRA, MISSING, COLOUR_MAP = (
    270, 280, 281, 340, 341, 338, 42113, 320,
)  # fmt: skip
_SAMPLE_FORMATS = {"u": 1, "i": 2, "f": 3}


def tiff(
    values: NDArray[Any],
    photometric: int = 1,
    order: str = "<",
    compress: bool = False,
    planar: bool = False,
    bits: int = 0,
    tags: Mapping[int, int | float | str | list[int]] | None = None,
) -> bytes:
    """A TIFF of (height, width, samples); integers of 12 `bits` are packed, `planar` not."""
    height, width, count = values.shape
    planes = np.moveaxis(values, 2, 0) if planar else values[None]
    strips = [_packed(plane) if bits == 12 else _stored(plane, order) for plane in planes]
    if compress:
        strips = [zlib.compress(strip) for strip in strips]
    starts = [8 + sum(len(strip) for strip in strips[:n]) for n in range(len(strips))]
    depth = bits or 8 * values.itemsize
    entries: dict[int, list[int] | float | str] = {
        256: [width], 257: [height], 258: [depth] * count, 259: [8 if compress else 1],
        262: [photometric], 273: starts, 277: [count], 278: [height],
        279: [len(strip) for strip in strips], 284: [2 if planar else 1],
        339: [_SAMPLE_FORMATS[values.dtype.kind]] * count,
    }  # fmt: skip
    for tag, value in (tags or {}).items():
        entries[tag] = [value] if isinstance(value, int) else value
    body = b"".join(strips)
    body += b"\0" * (len(body) % 2)
    directory, behind = b"", b""
    behind_at = 8 + len(body) + 2 + 12 * len(entries) + 4
    for tag, content in sorted(entries.items()):
        kind, number, encoded = _encoded(
            content, order, short=tag in (258, 262, 284, 320, 338, 339)
        )
        directory += struct.pack(f"{order}HHI", tag, kind, number)
        if len(encoded) > 4:
            directory += struct.pack(f"{order}I", behind_at + len(behind))
            behind += encoded + b"\0" * (len(encoded) % 2)
        else:
            directory += encoded.ljust(4, b"\0")
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}I", 8 + len(body))
    return start + body + struct.pack(f"{order}H", len(entries)) + directory + bytes(4) + behind


def _stored(plane: NDArray[Any], order: str) -> bytes:
    return plane.astype(plane.dtype.newbyteorder("<" if order == "<" else ">")).tobytes()


def _packed(plane: NDArray[Any]) -> bytes:
    first, second = plane.reshape(-1, 2).astype(np.uint16).T
    return np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], 1).astype(
        np.uint8
    ).tobytes()  # fmt: skip


def _encoded(content: list[int] | float | str, order: str, short: bool) -> tuple[int, int, bytes]:
    """Type, count and bytes of the values of a tag."""
    if isinstance(content, str):
        return 2, len(content) + 1, content.encode() + b"\0"
    if isinstance(content, float):
        return 11, 1, struct.pack(f"{order}f", content)
    letter = "H" if short else "I"
    return 3 if short else 4, len(content), struct.pack(f"{order}{len(content)}{letter}", *content)
