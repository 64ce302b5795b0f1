"""Models on S3, {prefix}/<name>/<version>/card.json, with copies on this machine."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from worker.jobs.errors import StorageUnavailable
from worker.jobs.models.cache import cached_copy
from worker.jobs.models.catalog import CARD_NAME, Artifact, Promotions
from worker.jobs.models.folder import PROMOTED_NAME
from worker.jobs.s3 import Folder

# What is added or promoted is seen this long after.
LOOK_S = 5.0

log = structlog.get_logger()


class ModelBucket:
    """A place of models on S3. While S3 is away, what was seen of it last holds."""

    def __init__(self, folder: Folder, cache_path: Path) -> None:
        self._folder = folder
        self._cache_path = cache_path
        self._looking = threading.Lock()
        self._looked = -LOOK_S
        self._seen: dict[str, tuple[str, bytes]] | None = None
        self._artifacts: tuple[Artifact, ...] = ()

    def artifacts(self) -> Sequence[Artifact]:
        """List all versions of all models."""
        self._look()
        return self._artifacts

    def promotions(self, name: str) -> Promotions:
        """Read what was promoted of a model."""
        _, written = self._look().get(f"{name}/{PROMOTED_NAME}", ("", b"{}"))
        return Promotions.model_validate_json(written)

    def fetch(self, artifact: Artifact) -> Path:
        """Give a folder with a verified copy of a version, which is downloaded once."""
        return cached_copy(
            self._cache_path, artifact, lambda scratch: self._download(artifact, scratch)
        )

    def put(self, folder: Path, artifact: Artifact) -> None:
        """Keep a copy of the artifact in `folder`; its card is written last."""
        prefix = _prefix(artifact)
        for name in artifact.names_in(folder):
            self._folder.put(prefix + name, (folder / name).read_bytes())
        self._looked = -LOOK_S

    def promote(self, name: str, promotions: Promotions) -> None:
        """Write what is promoted of a model."""
        written = promotions.model_dump_json(indent=2).encode()
        self._folder.put(f"{name}/{PROMOTED_NAME}", written, "application/json")
        self._looked = -LOOK_S

    def _look(self) -> dict[str, tuple[str, bytes]]:
        """Give the cards and promotions by key, each with its ETag."""
        with self._looking:
            if time.monotonic() - self._looked < LOOK_S and self._seen is not None:
                return self._seen
            try:
                seen = self._read(self._seen or {})
            except StorageUnavailable as error:
                if self._seen is None:
                    raise
                log.warning("registry_not_seen", reason=str(error))
                seen = self._seen
            if seen != self._seen:
                read = (
                    Artifact.read(card, key.removesuffix(f"/{CARD_NAME}"))
                    for key, (_, card) in seen.items()
                    if key.endswith(f"/{CARD_NAME}")
                )
                self._artifacts = tuple(artifact for artifact in read if artifact)
            self._seen, self._looked = seen, time.monotonic()
            return seen

    def _read(self, before: dict[str, tuple[str, bytes]]) -> dict[str, tuple[str, bytes]]:
        seen = {}
        for key, etag in self._folder.list(""):
            if not key.endswith((f"/{CARD_NAME}", f"/{PROMOTED_NAME}")):
                continue
            if key in before and before[key][0] == etag:
                seen[key] = before[key]
            elif (written := self._folder.get(key)) is not None:
                seen[key] = (etag, written)
        return seen

    def _download(self, artifact: Artifact, scratch: Path) -> None:
        for name in (CARD_NAME, *(file.path for file in artifact.files)):
            if (written := self._folder.get(_prefix(artifact) + name)) is not None:
                (scratch / name).write_bytes(written)


def _prefix(artifact: Artifact) -> str:
    return f"{artifact.card.name}/{artifact.card.version}/"
