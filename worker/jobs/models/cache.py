"""Verified local copies of artifacts."""

import hashlib
import tempfile
from collections.abc import Callable
from pathlib import Path

from worker.jobs.errors import ModelUnavailable
from worker.jobs.models.catalog import CARD_NAME, Artifact


def cached_copy(cache_path: Path, artifact: Artifact, download: Callable[[Path], None]) -> Path:
    """Give the folder of a local copy; `download` writes the files if there is none.

    Raises:
        ModelUnavailable: the hash of a file differs from the card.
    """
    card = artifact.card
    target = cache_path / f"{card.name}-{card.version}-{artifact.digest[:16]}"
    if target.is_dir():
        return target
    cache_path.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache_path, prefix=".fetching-") as scratch:
        fresh = Path(scratch) / "fresh"
        fresh.mkdir()
        download(fresh)
        verify(fresh, artifact)
        try:
            fresh.rename(target)
        except OSError:
            if not target.is_dir():  # another process created it
                raise
    return target


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
