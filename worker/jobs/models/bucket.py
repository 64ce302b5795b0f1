"""Models on S3 as {prefix}/<name>/<version>/card.json, with local copies."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from worker.jobs.errors import StorageUnavailable
from worker.jobs.models.artifact import CARD_NAME, Artifact
from worker.jobs.models.catalog import PROMOTED_NAME, Promotions
from worker.jobs.models.folder import new_folder
from worker.jobs.s3 import Folder

# The bucket is listed this often.
LIST_EVERY_S = 5.0

log = structlog.get_logger()


class ModelBucket:
    """A `ModelSource` in a bucket. While S3 is unavailable, the last listing is used."""

    def __init__(self, folder: Folder, cache_path: Path) -> None:
        self._folder = folder
        self._cache_path = cache_path
        self._listing = threading.Lock()
        self._listed_at = -LIST_EVERY_S
        self._listed: dict[str, tuple[str, bytes]] | None = None
        self._artifacts: tuple[Artifact, ...] = ()

    def artifacts(self) -> Sequence[Artifact]:
        self._cards_and_promotions()
        return self._artifacts

    def promotions(self, name: str) -> Promotions:
        _, written = self._cards_and_promotions().get(f"{name}/{PROMOTED_NAME}", ("", b"{}"))
        return Promotions.model_validate_json(written)

    def fetch(self, artifact: Artifact) -> Path:
        """Return a local folder with a verified copy of a version; it is downloaded once.

        Raises:
            ModelUnavailable: the hash of a file differs from the card.
        """
        card = artifact.card
        target = self._cache_path / f"{card.name}-{card.version}-{artifact.digest[:16]}"
        if target.is_dir():
            return target
        try:
            with new_folder(target) as fresh:
                for name in (CARD_NAME, *(file.path for file in artifact.files)):
                    if (written := self._folder.get(_prefix(artifact) + name)) is not None:
                        (fresh / name).write_bytes(written)
                artifact.verify(fresh)
        except OSError:
            if not target.is_dir():  # another process created it
                raise
        return target

    def put(self, folder: Path, artifact: Artifact) -> None:
        """Upload the artifact in `folder`; its card is written last."""
        prefix = _prefix(artifact)
        for name in artifact.names_in(folder):
            self._folder.put(prefix + name, (folder / name).read_bytes())
        self._listed_at = -LIST_EVERY_S

    def promote(self, name: str, promotions: Promotions) -> None:
        written = promotions.model_dump_json(indent=2).encode()
        self._folder.put(f"{name}/{PROMOTED_NAME}", written, "application/json")
        self._listed_at = -LIST_EVERY_S

    def _cards_and_promotions(self) -> dict[str, tuple[str, bytes]]:
        """The cards and promotions by key, each with its ETag."""
        with self._listing:
            if time.monotonic() - self._listed_at < LIST_EVERY_S and self._listed is not None:
                return self._listed
            try:
                listing = self._read(self._listed or {})
            except StorageUnavailable as error:
                if self._listed is None:
                    raise
                log.warning("registry_unavailable", reason=str(error))
                listing = self._listed
            if listing != self._listed:
                read = (
                    Artifact.read(card, key.removesuffix(f"/{CARD_NAME}"))
                    for key, (_, card) in listing.items()
                    if key.endswith(f"/{CARD_NAME}")
                )
                self._artifacts = tuple(artifact for artifact in read if artifact)
            self._listed, self._listed_at = listing, time.monotonic()
            return listing

    def _read(self, before: dict[str, tuple[str, bytes]]) -> dict[str, tuple[str, bytes]]:
        listing = {}
        for key, etag in self._folder.list(""):
            if not key.endswith((f"/{CARD_NAME}", f"/{PROMOTED_NAME}")):
                continue
            if key in before and before[key][0] == etag:
                listing[key] = before[key]
            elif (written := self._folder.get(key)) is not None:
                listing[key] = (etag, written)
        return listing


def _prefix(artifact: Artifact) -> str:
    return f"{artifact.card.name}/{artifact.card.version}/"
