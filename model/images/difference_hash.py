"""The difference hash of a picture: 64 bits that survive compression and resizing."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

HASH_BYTES = 8
# Width and height of the picture of which the hash compares neighbours, 64 bits.
_HASH_SIZE = (9, 8)


def difference_hash(pixels: NDArray[np.uint8]) -> bytes:
    """One bit for each pair of neighbours: whether `pixels` become brighter from left to right."""
    small = Image.fromarray(pixels).convert("L").resize(_HASH_SIZE, Image.Resampling.BOX)
    grey = np.asarray(small, np.int16)
    return np.packbits(grey[:, 1:] > grey[:, :-1]).tobytes()
