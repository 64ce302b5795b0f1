"""Models in a folder as <name>/<version>/card.json, read again on each call."""

import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

from worker.jobs.models.artifact import CARD_NAME, Artifact
from worker.jobs.models.catalog import PROMOTED_NAME, Promotions


class ModelFolder:
    """A `ModelSource` in a folder, which several processes or machines may share."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def artifacts(self) -> Sequence[Artifact]:
        versions = [folder for model in _folders(self._path) for folder in _folders(model)]
        found = (_found(Path(folder, CARD_NAME)) for folder in versions)
        return [artifact for artifact in found if artifact]

    def promotions(self, name: str) -> Promotions:
        try:
            written = (self._path / name / PROMOTED_NAME).read_bytes()
        except FileNotFoundError:
            return Promotions()
        return Promotions.model_validate_json(written)

    def fetch(self, artifact: Artifact) -> Path:
        """The folder of a version."""
        return self._path / artifact.card.name / artifact.card.version

    def put(self, folder: Path, artifact: Artifact) -> None:
        target = self.fetch(artifact)
        with new_folder(target) as fresh:
            for name in artifact.names_in(folder):
                shutil.copyfile(folder / name, fresh / name)

    def promote(self, name: str, promotions: Promotions) -> None:
        target = self._path / name / PROMOTED_NAME
        target.parent.mkdir(parents=True, exist_ok=True)
        fresh = target.with_name(f".{PROMOTED_NAME}")
        fresh.write_text(promotions.model_dump_json(indent=2) + "\n")
        fresh.replace(target)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Return an empty folder that becomes `target` if the block succeeds, and is removed if not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".writing-") as scratch:
        fresh = Path(scratch) / "fresh"
        fresh.mkdir()
        yield fresh
        fresh.rename(target)


def _folders(path: str | Path) -> list[str]:
    """List the folders in a folder, which may be missing; those named with a dot are incomplete.

    Each submission looks for models, and `Path.glob` would take three times as long.
    """
    try:
        with os.scandir(path) as entries:
            return [entry.path for entry in entries if entry.name[0] != "." and entry.is_dir()]
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []


def _found(card: Path) -> Artifact | None:
    try:
        return _read(card, card.stat().st_mtime_ns)
    except FileNotFoundError:
        return None


@lru_cache(maxsize=256)
def _read(path: Path, _written_ns: int) -> Artifact | None:
    """Read a card again only if it was written again."""
    return Artifact.read(path.read_bytes(), "/".join(path.parts[-3:-1]))
