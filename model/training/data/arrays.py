"""Arrays that outgrow memory: files that are mapped, rows of them, and passes over all rows."""

import mmap
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import structlog
from numpy.typing import NDArray

from model.training.config import TrainingError

Part = TypeVar("Part")

log = structlog.get_logger()

# Rows that are in memory at a time: 77 MB of pictures of 224 x 224 pixels.
BLOCK_ROWS = 512


@dataclass(frozen=True)
class Rows:
    """Some rows of an array, `indexes` of it in this order, which are read when they are needed."""

    array: NDArray[Any]
    indexes: NDArray[np.intp]

    @property
    def shape(self) -> tuple[int, ...]:
        """As of an array of these rows."""
        return (len(self.indexes), *self.array.shape[1:])

    def __len__(self) -> int:
        return len(self.indexes)

    @classmethod
    def all_of(cls, array: NDArray[Any]) -> "Rows":
        """All rows of an array."""
        return cls(array, np.arange(len(array)))

    def __iter__(self) -> Iterator[NDArray[Any]]:
        for number, index in enumerate(self.indexes):
            yield self.array[index]
            if number % BLOCK_ROWS == BLOCK_ROWS - 1:
                release(self.array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self.array[self.indexes], dtype)

    @overload
    def __getitem__(self, chosen: slice) -> NDArray[Any]: ...

    @overload
    def __getitem__(self, chosen: NDArray[Any]) -> "Rows": ...

    def __getitem__(self, chosen: slice | NDArray[Any]) -> "NDArray[Any] | Rows":
        """Read a slice of the rows, or choose rows by a mask or by their numbers."""
        if isinstance(chosen, slice):
            return np.asarray(self.array[self.indexes[chosen]])
        return Rows(self.array, self.indexes[chosen])


def mapped(folder: Path, shape: tuple[int, ...], dtype: Any, name: str | None = None) -> Any:
    """An array in a file in `folder`, for which there is room on the disk.

    The file is deleted with the array or, if it has a `name`, kept; one of the same size is used
    with what it contains.

    Raises:
        TrainingError: there is no room.
    """
    folder.mkdir(parents=True, exist_ok=True)
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    if not size:
        return np.empty(shape, dtype)
    with _opened(folder, name) as file:
        try:
            if hasattr(
                os, "posix_fallocate"
            ):  # a write to a map without room would end the process
                os.posix_fallocate(file.fileno(), 0, size)
            os.ftruncate(file.fileno(), size)
        except OSError as error:
            raise TrainingError(
                f"{folder} has no room for {size / 1e9:.1f} GB ({error.strerror}): set runs_path "
                "to a folder on a disk with more room"
            ) from error
        return np.memmap(file, dtype, "r+", shape=shape)


def _opened(folder: Path, name: str | None) -> Any:
    if name is None:
        return tempfile.TemporaryFile(dir=folder)
    (folder / name).touch()
    return (folder / name).open("r+b")


def release(array: Any) -> None:
    """Take the pages of a mapped array out of the memory of this process; nothing is lost."""
    own = array.array if isinstance(array, Rows) else array
    pages = getattr(own, "_mmap", None)
    if pages is not None and hasattr(mmap, "MADV_DONTNEED"):
        pages.madvise(mmap.MADV_DONTNEED)


def apply(
    function: Callable[[Any], Any],
    source: Any,
    batch_size: int,
    target: Any = None,
    shown: str | None = None,
) -> Any:
    """The results of a function that takes rows in batches, of all rows of `source`.

    It gets blocks of whole batches, so that it gives the same as for all rows at once. They are
    written to `target`, if that is given; `shown` is the event that reports progress.
    """
    block = max(1, BLOCK_ROWS // batch_size) * batch_size
    results = []
    for start in range(0, len(source), block):
        part = function(source[start : start + block])
        release(source)
        if target is None:
            results.append(part)
        else:
            target[start : start + len(part)] = part
            release(target)
        if shown and len(source) > block:
            log.info(shown, number=start + len(part), of=len(source))
    return np.concatenate(results) if target is None else target


def predicted(model: Any, source: Any, batch_size: int, **options: Any) -> Any:
    """The outputs of a Keras model for all rows of `source`; for `options`, see `apply`."""
    return apply(
        lambda rows: model.predict(rows, batch_size, verbose=0), source, batch_size, **options
    )


def chosen_rows(source: "NDArray[Any] | Rows", mask: NDArray[np.bool_]) -> Rows:
    """The rows of an array, or of rows of one, where `mask` is true."""
    return source[mask] if isinstance(source, Rows) else Rows(source, np.flatnonzero(mask))


def prefetched(parts: Iterator[Part]) -> Iterator[Part]:
    """The same parts, each made while the caller uses the one before."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, parts, None)
        while (part := following.result()) is not None:
            following = pool.submit(next, parts, None)
            yield part
