"""Stores the intermediate results of a run on disk, so that it can be resumed after a crash."""

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.training.config import TrainingError
from model.training.data.arrays import mapped

Arrays = dict[str, NDArray[np.generic]]


@contextmanager
def reserved(folder: Path) -> Iterator[None]:
    """Reserve the folder of a run, which ends with this process at the latest.

    Raises TrainingError if another training has reserved it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TrainingError(
                f"{folder} is in use by another training: wait for its end, or give this one "
                "another --model or --runs_path"
            ) from None
        yield


class Checkpoints:
    """Named sets of arrays in a folder, each written atomically.

    Sets of another run, one with another `fingerprint`, are deleted.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder = folder
        path = folder / "fingerprint"
        if not path.is_file() or path.read_text() != fingerprint:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            path.write_text(fingerprint)

    def load(self, key: str) -> Arrays | None:
        """The arrays that were saved as `key`."""
        path = self._folder / f"{key}.npz"
        if not path.is_file():
            return None
        with np.load(path) as arrays:
            return dict(arrays)

    def save(self, key: str, *values: Any, **arrays: NDArray[np.generic]) -> None:
        """Save `arrays`, and `values` for `in_order`, as `key`, in place of those saved before."""
        part = self._folder / f"{key}.part"
        with part.open("wb") as file:
            np.savez(file, *values, **arrays)  # type: ignore[arg-type]  # as if a name were a flag
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._folder / f"{key}.npz")

    def array(self, key: str, shape: tuple[int, ...], dtype: Any) -> Any:
        """An array in a mapped file, which has what the run wrote to it before a crash.

        Raises TrainingError if there is no room for it.
        """
        return mapped(self._folder, shape, dtype, f"{key}.array")

    def delete(self) -> None:
        """Delete the folder, when the run has ended."""
        shutil.rmtree(self._folder)


def in_order(arrays: Arrays) -> list[NDArray[np.generic]]:
    """The values that were saved without a name, in their order."""
    names = (f"arr_{index}" for index in range(len(arrays)))
    return [arrays[name] for name in names if name in arrays]
