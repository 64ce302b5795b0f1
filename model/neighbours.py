"""Finds the pictures that are most alike, and groups of near-duplicates, by their features.

An inverted file index in blocks of NumPy: the pictures are divided into cells by k-means, and each
is compared with those of the cells nearest to it. docs/decisions/similar-pictures.md says why.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Neighbours that are kept of each picture.
NEIGHBOURS = 20
# Features are projected to this many numbers of 8 bits, which changes a cosine by about 0.01.
PROJECTED = 256
# Near-duplicates have a cosine of at least this, and more for each of 64 bits in which their
# difference hashes differ; the benchmark `similar` measures what that finds.
LEAST_SIMILARITY = 0.87
MORE_A_BIT = 0.003
# Up to so many pictures are all compared with each other; of more, each with those of some cells.
_ONE_CELL = 4096
_PROBES = 8
_ROUNDS = 5
_SAMPLES_A_CELL = 40
# A cell has at most this many times the mean size, whatever the pictures are.
_LARGEST_CELL = 4
_BLOCK_ROWS = 1024

Rows = NDArray[np.int8]


class Projection:
    """Projects features (n, width) to `Rows` (n, PROJECTED) whose cosines are nearly the same."""

    def __init__(self, width: int) -> None:
        random = np.random.default_rng(0)
        size = min(width, PROJECTED)
        drawn = random.standard_normal((width, size))
        self._matrix = np.linalg.qr(drawn)[0].astype(np.float32)

    def __call__(self, features: NDArray[np.float32]) -> Rows:
        projected = features @ self._matrix
        largest = np.abs(projected).max(axis=1, keepdims=True)
        scaled = np.rint(projected * (127 / np.maximum(largest, 1e-12)))
        return np.asarray(scaled, np.int8)


@dataclass(frozen=True)
class Neighbours:
    """The nearest rows of each row: `index` (n, k), -1 for none, and `similarity` (n, k).

    The nearest come first, and no row is its own neighbour. A similarity is a cosine.
    """

    index: NDArray[np.int32]
    similarity: NDArray[np.float32]


def find_neighbours(rows: Rows, count: int = NEIGHBOURS) -> Neighbours:
    """The `count` nearest rows of each, of those in the cells that are nearest to it."""
    total = len(rows)
    index = np.full((total, count), -1, np.int32)
    similarity = np.full((total, count), -2, np.float32)
    cells = _cells(rows)
    for members, queries in cells:
        others = unit_rows(rows[members])
        for start in range(0, len(queries), _BLOCK_ROWS):
            asked = queries[start : start + _BLOCK_ROWS]
            found = unit_rows(rows[asked]) @ others.T
            found[asked[:, None] == members[None]] = -2
            _merge(index, similarity, asked, members, found)
    order = np.argsort(-similarity, axis=1, kind="stable")
    similarity = np.take_along_axis(similarity, order, 1)
    index = np.take_along_axis(index, order, 1)
    index[similarity < -1] = -1
    return Neighbours(index, np.clip(similarity, -1, 1))


def _merge(
    index: NDArray[np.int32],
    similarity: NDArray[np.float32],
    asked: NDArray[np.intp],
    members: NDArray[np.intp],
    found: NDArray[np.float32],
) -> None:
    """Add what was found of the rows `asked` to their nearest so far."""
    count = index.shape[1]
    if found.shape[1] > count:
        best = np.argpartition(-found, count - 1, axis=1)[:, :count]
        found, candidates = np.take_along_axis(found, best, 1), members[best]
    else:
        candidates = np.broadcast_to(members, found.shape)
    both = np.hstack([similarity[asked], found])
    whose = np.hstack([index[asked], candidates.astype(np.int32)])
    best = np.argpartition(-both, count - 1, axis=1)[:, :count]
    similarity[asked] = np.take_along_axis(both, best, 1)
    index[asked] = np.take_along_axis(whose, best, 1)


def _cells(rows: Rows) -> list[tuple[NDArray[np.intp], NDArray[np.intp]]]:
    """Cells, each as the rows in it and the rows that are compared with them."""
    everything = np.arange(len(rows))
    if len(rows) <= _ONE_CELL:
        return [(everything, everything)]
    centres = _centres(rows)
    nearest = np.empty((len(rows), min(_PROBES, len(centres))), np.int32)
    for start in range(0, len(rows), _BLOCK_ROWS):
        far = -(unit_rows(rows[start : start + _BLOCK_ROWS]) @ centres.T)
        some = np.argpartition(far, nearest.shape[1] - 1, axis=1)[:, : nearest.shape[1]]
        by_distance = np.argsort(np.take_along_axis(far, some, 1), axis=1)
        nearest[start : start + _BLOCK_ROWS] = np.take_along_axis(some, by_distance, 1)
    largest = _LARGEST_CELL * len(rows) // len(centres)
    found = []
    for members, queries in zip(
        _inverted(nearest[:, :1], len(centres)), _inverted(nearest, len(centres)), strict=True
    ):
        parts = -(-len(members) // largest)
        if parts <= 1:
            found.append((members, queries))
            continue
        # Of a cell that is too large, each row is compared with a part: its own, or any.
        for part in range(parts):
            own = members[part::parts]
            others = np.setdiff1d(queries, members, assume_unique=True)[part::parts]
            found.append((own, np.concatenate([own, others])))
    return found


def _inverted(cells: NDArray[np.int32], count: int) -> list[NDArray[np.intp]]:
    """The rows in which each of `count` cells occurs."""
    order = np.argsort(cells, axis=None, kind="stable")
    ends = np.searchsorted(cells.ravel()[order], np.arange(1, count))
    return np.split(order // cells.shape[1], ends)


def _centres(rows: Rows) -> NDArray[np.float32]:
    """Unit vectors in the middle of cells, by k-means on a sample."""
    random = np.random.default_rng(0)
    count = round(len(rows) ** 0.5)
    sample = random.choice(len(rows), min(len(rows), count * _SAMPLES_A_CELL), replace=False)
    unit = unit_rows(rows[np.sort(sample)])
    centres: NDArray[np.float32] = unit[random.choice(len(unit), count, replace=False)]
    for _ in range(_ROUNDS):
        nearest = np.concatenate(
            [
                (unit[start : start + _BLOCK_ROWS] @ centres.T).argmax(axis=1)
                for start in range(0, len(unit), _BLOCK_ROWS)
            ]
        )
        order = np.argsort(nearest, kind="stable")
        present, starts = np.unique(nearest[order], return_index=True)
        sums = np.add.reduceat(unit[order], starts)
        centres[present] = sums / np.maximum(np.linalg.norm(sums, axis=1, keepdims=True), 1e-12)
    return centres


def unit_rows(rows: NDArray[Any]) -> NDArray[np.float32]:
    """The rows (n, width) with the length 1, so that their products are cosines."""
    values = rows.astype(np.float32)
    lengths = np.linalg.norm(values, axis=1, keepdims=True)
    return np.asarray(values / np.maximum(lengths, 1e-12), np.float32)


def near_duplicates(neighbours: Neighbours, hashes: NDArray[np.uint8]) -> NDArray[np.int32]:
    """The group (n,) of each row: the lowest row that is nearly the same, or that leads to it.

    `hashes` (n, 8) are difference hashes.
    """
    one, column = np.nonzero(neighbours.similarity >= LEAST_SIMILARITY)
    other = neighbours.index[one, column]
    bits = np.bitwise_count(hashes[one] ^ hashes[other]).sum(axis=1)
    alike = neighbours.similarity[one, column] >= LEAST_SIMILARITY + MORE_A_BIT * bits
    group = list(range(len(hashes)))

    def first(row: int) -> int:
        while group[row] != row:
            group[row] = group[group[row]]
            row = group[row]
        return row

    for left, right in zip(one[alike].tolist(), other[alike].tolist(), strict=True):
        low, high = sorted((first(left), first(right)))
        group[high] = low
    return np.array([first(row) for row in range(len(group))], np.int32)
