"""Scales pictures down for the labelling page and the reports."""

import io

from PIL import Image

from model.images.decode import decode

_PROBE_SIZE = (32, 32)


def jpeg_preview(payload: bytes, longest_side: int, max_pixels: int = 50_000_000) -> bytes:
    """A picture of any format as an upright JPEG of at most `longest_side` pixels a side.

    Raises:
        ImageRejected: it is not a picture that a model accepts.
    """
    probe = decode(payload, _PROBE_SIZE, max_pixels)
    scale = min(1, longest_side / max(probe.width, probe.height))
    size = max(1, round(probe.height * scale)), max(1, round(probe.width * scale))
    target = io.BytesIO()
    Image.fromarray(decode(payload, size, max_pixels).pixels).save(target, "JPEG", quality=85)
    return target.getvalue()
