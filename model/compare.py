"""Compares pictures in a process of its own: `python -m model.compare`, for `compare`."""

import io
import os
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from model.artifact.features import unpack_features
from model.artifact.subprocess_module import ROOT, ModuleFailed
from model.images.difference_hash import HASH_BYTES
from model.neighbours import Neighbours, Projection, find_neighbours, near_duplicates

_BLOCK_ROWS = 1024
_NICE = 10


@dataclass(frozen=True)
class Picture:
    """A picture to compare, by its number; its packed features and its difference hash.

    A picture without a hash is in no group of near-duplicates.
    """

    number: int
    sha256: bytes
    features: bytes | memoryview
    difference_hash: bytes | memoryview


@dataclass(frozen=True)
class Comparison:
    """What is alike, as numbers of pictures.

    `numbers` (n,) are those that were compared. `neighbours` (n, k) are the most alike ones of
    each, the same picture first, -1 for none, and `similarity` (n, k) their cosines. `groups` (n,)
    is the first picture of the group of near-duplicates of each.
    """

    numbers: NDArray[np.int32]
    neighbours: NDArray[np.int32]
    similarity: NDArray[np.float32]
    groups: NDArray[np.int32]


def compare(pictures: Iterable[Picture]) -> Comparison | None:
    """Compare pictures whose features have the same size; None if there are none.

    A subprocess of low priority does it, with one thread; it takes about 1.3 kB a picture.

    Raises:
        ModuleFailed: it failed, for example for lack of memory.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "model.compare"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        try:
            count = _send(process.stdin, pictures)
            process.stdin.close()
            content = process.stdout.read()
        except BrokenPipeError:
            content = b""
        except BaseException:
            process.kill()
            raise
    if process.returncode:
        code = process.returncode
        raise ModuleFailed(f"model.compare ended with code {code}: see the log of the worker")
    if not count:
        return None
    stream = io.BytesIO(content)
    return Comparison(*(np.load(stream) for _ in range(4)))


def _send(stream: IO[bytes], pictures: Iterable[Picture]) -> int:
    count = 0
    for one in pictures:
        if not count:
            stream.write(len(one.features).to_bytes(4, "little"))
        stream.write(one.number.to_bytes(4, "little") + one.sha256)
        stream.write(bytes(one.difference_hash).rjust(HASH_BYTES, b"\0"))
        stream.write(bytes([bool(one.difference_hash)]))
        stream.write(one.features)
        count += 1
    return count


def main() -> None:
    """Read pictures, and write the arrays of their `Comparison`."""
    os.nice(_NICE)
    size = int.from_bytes(sys.stdin.buffer.read(4), "little")
    if not size:
        return
    kind = np.dtype(
        [
            ("number", "<i4"),
            ("sha256", "V32"),
            ("hash", "u1", HASH_BYTES),
            ("has_hash", "u1"),
            ("features", "u1", size),
        ]
    )
    numbers, digests, hashes, rows, hashed = [], [], [], [], []
    project = None
    while block := sys.stdin.buffer.read(_BLOCK_ROWS * kind.itemsize):
        pictures = np.frombuffer(block, kind)
        features = unpack_features([one.tobytes() for one in pictures["features"]])
        project = project or Projection(features.shape[1])
        rows.append(project(features))
        numbers.append(pictures["number"].copy())
        digests.append(pictures["sha256"].copy())
        hashes.append(pictures["hash"].copy())
        hashed.append(pictures["has_hash"].astype(np.bool_))
    joined = map(np.concatenate, (numbers, digests, hashes, hashed, rows))
    for array in _compared(*joined):
        content = io.BytesIO()  # NumPy asks a file for its position, which a pipe has not
        np.save(content, array)
        sys.stdout.buffer.write(content.getbuffer())


def _compared(
    numbers: NDArray[np.int32],
    digests: NDArray[np.void],
    hashes: NDArray[np.uint8],
    hashed: NDArray[np.bool_],
    rows: NDArray[np.int8],
) -> tuple[NDArray[np.generic], ...]:
    """The arrays of a `Comparison`; a picture that occurs several times is compared once."""
    _, first, which = np.unique(digests, return_index=True, return_inverse=True)
    found = find_neighbours(rows[first])
    groups = near_duplicates(_of_hashed(found, hashed[first]), hashes[first])
    own = numbers[first]
    index = np.where(found.index >= 0, own[found.index], -1)[which]
    similarity = found.similarity[which]
    copies = np.bincount(which)
    order = np.argsort(which, kind="stable")
    ends = np.cumsum(copies)
    for one in np.flatnonzero(copies > 1):
        same = order[ends[one] - copies[one] : ends[one]]
        for row in same:
            others = numbers[same[same != row][: index.shape[1]]]
            index[row] = np.concatenate([others, index[row]])[: index.shape[1]]
            ones = np.ones(len(others), np.float32)
            similarity[row] = np.concatenate([ones, similarity[row]])[: index.shape[1]]
    # The first number of each group, whatever the order of the digests is.
    lowest = np.full(len(own), np.iinfo(np.int32).max, np.int32)
    np.minimum.at(lowest, groups[which], numbers)
    return numbers, index.astype(np.int32), similarity, lowest[groups][which]


def _of_hashed(found: Neighbours, hashed: NDArray[np.bool_]) -> Neighbours:
    """The neighbours between pictures that have a hash."""
    both = hashed[:, None] & hashed[found.index]
    return Neighbours(found.index, np.where(both, found.similarity, np.float32(-1)))


if __name__ == "__main__":
    main()
