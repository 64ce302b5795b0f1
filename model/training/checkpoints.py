"""What a run has computed so far, kept on disk until it ends, so that a crash costs little."""

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

Arrays = dict[str, NDArray[np.generic]]

_NUMBERED = "number-{:04}"
_FINGERPRINT = "fingerprint"


class Checkpoints:
    """Named sets of arrays in a folder. Each is written whole or not at all.

    What another run left there, one with another `fingerprint`, is forgotten.
    """

    def __init__(self, folder: Path, fingerprint: str) -> None:
        self._folder = folder
        note = folder / _FINGERPRINT
        if not note.is_file() or note.read_text() != fingerprint:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            note.write_text(fingerprint)

    def load(self, key: str) -> Arrays | None:
        """The arrays kept as `key`."""
        path = self._path(key)
        if not path.is_file():
            return None
        with np.load(path) as arrays:
            return dict(arrays)

    def save(self, key: str, **arrays: NDArray[np.generic]) -> None:
        """Keep `arrays` as `key`, in place of what was kept so before."""
        part = self._folder / f"{key}.part"
        with part.open("wb") as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]  # its stub takes a name for a flag
            file.flush()
            os.fsync(file.fileno())
        part.replace(self._path(key))

    def forget(self) -> None:
        """Forget everything: the run has ended."""
        shutil.rmtree(self._folder)

    def _path(self, key: str) -> Path:
        return self._folder / f"{key}.npz"


def numbered(values: Sequence[Any]) -> Arrays:
    """Names for `values`, arrays or variables, by their places."""
    return {_NUMBERED.format(index): np.asarray(value) for index, value in enumerate(values)}


def in_order(arrays: Arrays) -> list[NDArray[np.generic]]:
    """What `numbered` named, back in its order; others are left out."""
    names = map(_NUMBERED.format, range(len(arrays)))
    return [arrays[name] for name in names if name in arrays]
