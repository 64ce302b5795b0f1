"""Verified local copies of artifacts."""

import hashlib
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from worker.jobs.errors import ModelUnavailable
from worker.jobs.models.catalog import CARD_NAME, Artifact


def cached_copy(cache_path: Path, artifact: Artifact, download: Callable[[Path], None]) -> Path:
    """Return the folder of a local copy; `download` writes the files if there is none.

    Raises:
        ModelUnavailable: the hash of a file differs from the card.
    """
    card = artifact.card
    target = cache_path / f"{card.name}-{card.version}-{artifact.digest[:16]}"
    if target.is_dir():
        return target
    try:
        with new_folder(target) as fresh:
            download(fresh)
            verify(fresh, artifact)
    except OSError:
        if not target.is_dir():  # another process created it
            raise
    return target


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """Return an empty folder that becomes `target` if the block succeeds, and is removed if not."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=".writing-") as scratch:
        fresh = Path(scratch) / "fresh"
        fresh.mkdir()
        yield fresh
        fresh.rename(target)


def verify(folder: Path, artifact: Artifact) -> None:
    """Compare the files in `folder` with the artifact's card.

    Raises:
        ModelUnavailable: the hash of a file differs, or the model file is missing.
    """
    for file in artifact.files:
        path = folder / file.path
        if not path.exists() and file.sha256 != artifact.card.sha256:
            continue  # the file of another engine
        if not path.is_file() or _sha256(path) != file.sha256:
            raise ModelUnavailable(
                f"{file.path} of {artifact.card.name}@{artifact.card.version} is missing or "
                f"differs from the hash in its {CARD_NAME}: add that version again"
            )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
