"""The thumbnails of a chunk as one value: their lengths, then their bytes."""

import struct
from collections.abc import Mapping

# A thumbnail may have this many bytes, as the limits of the API promise.
MOST_BYTES = 4096
MEDIA_TYPE = "image/webp"


def pack_thumbnails(thumbnails: Mapping[int, bytes]) -> bytes:
    """Pack thumbnails by the position of their item in its chunk; empty if there are none."""
    if not thumbnails:
        return b""
    by_position = [thumbnails.get(position, b"") for position in range(max(thumbnails) + 1)]
    lengths = [len(one) for one in by_position]
    return struct.pack(f"<H{len(lengths)}H", len(lengths), *lengths) + b"".join(by_position)


def unpack_thumbnail(packed: bytes, position: int) -> bytes | None:
    """Read the thumbnail of the item at a position; None if it has none.

    Raises:
        ValueError: they are damaged.
    """
    try:
        (count,) = struct.unpack_from("<H", packed)
        lengths = struct.unpack_from(f"<{count}H", packed, 2)
    except struct.error as error:
        raise ValueError(f"not packed thumbnails ({error}): submit the pictures again") from error
    if len(packed) != 2 + 2 * count + sum(lengths):
        raise ValueError("not packed thumbnails: submit the pictures again")
    if position >= count:
        return None
    start = 2 + 2 * count + sum(lengths[:position])
    return packed[start : start + lengths[position]] or None
