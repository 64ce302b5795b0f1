"""Makes the small versions of pictures that people look at."""

import io

from PIL import Image

from model.images.result import DecodedImage

SIDE_PIXELS = 160
# Tried in this order; most photos fit at the first.
_QUALITIES = (80, 60, 40, 20)
# Pillow's measure of effort, 0 to 6: more takes twice the time for a few percent.
_EFFORT = 2


def thumbnail(image: DecodedImage, most_bytes: int) -> bytes:
    """Make a WebP of at most `most_bytes` of a decoded picture, upright and in its proportions.

    Its longer side has SIDE_PIXELS, or fewer if the picture or its decoded pixels have fewer, or if
    it would have too many bytes.
    """
    longest = max(image.width, image.height)
    side = min(SIDE_PIXELS, longest, max(image.pixels.shape))
    pixels = Image.fromarray(image.pixels)
    while True:
        size = (max(1, side * image.width // longest), max(1, side * image.height // longest))
        small = pixels.resize(size, Image.Resampling.BICUBIC)
        for quality in _QUALITIES:
            made = io.BytesIO()
            small.save(made, "WEBP", quality=quality, method=_EFFORT)
            if made.tell() <= most_bytes:
                return made.getvalue()
        side //= 2
