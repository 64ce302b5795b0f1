"""Which models there are, and which version of each is promoted, as the job contract needs it."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from datetime import date
from heapq import nlargest
from pathlib import Path
from typing import Protocol, Self

import structlog
from pydantic import BaseModel, ConfigDict, Field

from worker.jobs.errors import ModelNotFound
from worker.jobs.record import ModelRef

CARD_NAME = "card.json"
_REFERENCE = re.compile(r"(?P<name>[a-z0-9][a-z0-9_-]*)(@(?P<version>[0-9]+))?")

log = structlog.get_logger()


class ModelFile(BaseModel):
    """One file of an artifact, beside its card."""

    model_config = ConfigDict(frozen=True)

    # Nothing but a name, for cards may come from elsewhere.
    path: str = Field(pattern=r"^[^/\\]+$")
    sha256: str


class ModelCard(BaseModel):
    """What a job needs to know of its model: its exact version and what its scores mean."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    sha256: str
    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    # What each inference thread of a worker takes that holds the model.
    memory_bytes: int = Field(ge=1)
    created: date
    # How many scores answer for a picture, best first; all of them if unset.
    top_k: int | None = None

    @property
    def ref(self) -> ModelRef:
        """Give what names the model."""
        return ModelRef(self.name, self.version, self.sha256)

    def answer(
        self, scores: Sequence[float], top_k: int | None = None, threshold: float | None = None
    ) -> tuple[dict[str, float], list[str]]:
        """Give the scores that answer for a picture by label, and its labels among these.

        With a `top_k`, or one of the model's own, these are the best, sorted. `threshold` stands
        for those of the model.
        """
        found: Iterable[tuple[str, float, float]]
        found = zip(self.labels, scores, self.thresholds, strict=True)
        if count := top_k or self.top_k:
            found = nlargest(count, found, key=lambda one: one[1])
        answer, labels = {}, []
        for label, score, least in found:
            answer[label] = score
            if score >= (least if threshold is None else threshold):
                labels.append(label)
        return answer, labels


class _ArtifactCard(ModelCard):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    version: str = Field(pattern=r"^[0-9]+$")
    sha256: str = ""
    files: dict[str, ModelFile]


class Artifact(BaseModel):
    """A version of a model where it is kept: its card and its files, `card.json` left out."""

    model_config = ConfigDict(frozen=True)

    card: ModelCard
    files: tuple[ModelFile, ...]
    # Of its card.json, byte by byte.
    digest: str

    @classmethod
    def parse(cls, card_json: bytes) -> Self:
        """Read a card.json; the model is known by the hash of its LiteRT file, else of its Keras.

        Raises:
            ValueError: it is no card.
        """
        card = _ArtifactCard.model_validate_json(card_json)
        known_by = card.files.get("litert") or card.files.get("keras")
        if known_by is None:
            raise ValueError("the card names no file of the model")
        return cls(
            card=ModelCard(**card.model_dump(exclude={"files"}) | {"sha256": known_by.sha256}),
            files=tuple(card.files.values()),
            digest=hashlib.sha256(card_json).hexdigest(),
        )

    @classmethod
    def read(cls, card_json: bytes, folder: str) -> Self | None:
        """Read the card.json of `folder`; None, with a warning, where it is of no use."""
        try:
            artifact = cls.parse(card_json)
        except ValueError as error:
            log.warning("card_passed_over", folder=folder, reason=str(error))
            return None
        if folder != f"{artifact.card.name}/{artifact.card.version}":
            log.warning("card_passed_over", folder=folder, reason="its card names another version")
            return None
        return artifact

    def names_in(self, folder: Path) -> list[str]:
        """List its files, the card last; one for another engine may not have come along."""
        names = [file.path for file in self.files if (folder / file.path).exists()]
        return [*names, CARD_NAME]


class Promotions(BaseModel):
    """The versions of a model that were promoted, the one that holds last; a `promoted.json`."""

    history: tuple[str, ...] = ()


class ModelSource(Protocol):
    """Where artifacts are kept as <name>/<version>/, each with its card.

    What is away raises StorageUnavailable.
    """

    def artifacts(self) -> Sequence[Artifact]:
        """List all versions of all models, as of a few seconds ago at most."""

    def promotions(self, name: str) -> Promotions:
        """Read what was promoted of a model, as of a few seconds ago at most."""

    def fetch(self, artifact: Artifact) -> Path:
        """Give the folder of a version on this machine."""

    def put(self, folder: Path, artifact: Artifact) -> None:
        """Keep a copy of the artifact in `folder`; it is there as a whole or not at all."""

    def promote(self, name: str, promotions: Promotions) -> None:
        """Write what is promoted of a model."""


class ModelCatalog:
    """The models of some sources; what one source has goes before the same of a later one."""

    def __init__(self, sources: Sequence[ModelSource], default: str) -> None:
        self._sources = sources
        self._default = default

    @property
    def registry(self) -> ModelSource:
        """Where versions are added and promoted."""
        return self._sources[0]

    def all(self) -> list[ModelCard]:
        """List every version of every model, newest version of each first."""
        return sorted(self._cards().values(), key=lambda card: (card.name, -int(card.version)))

    def resolve(self, reference: str | None) -> ModelCard:
        """Find `name@version`, the current version of `name`, or of the default model for None.

        Raises:
            ModelNotFound: names the models there are.
        """
        reference = reference or self._default
        match = _REFERENCE.fullmatch(reference)
        cards = self._cards()
        if match:
            version = match["version"] or self._current(match["name"], cards)
            # A version may be written with leading zeros.
            if version and (card := cards.get((match["name"], int(version)))):
                return card
        known = ", ".join(f"{card.name}@{card.version}" for card in self.all()) or "none"
        raise ModelNotFound(f"no model {reference!r}; there are: {known}")

    def promotions(self, name: str) -> Promotions:
        """Read what was promoted of a model."""
        for source in self._sources:
            if (found := source.promotions(name)).history:
                return found
        return Promotions()

    def fetch(self, model: ModelRef) -> Path:
        """Give the folder on this machine that holds exactly this model.

        Raises:
            ModelNotFound: no source has it, or not with this hash.
        """
        source, artifact = self._find(model)
        return source.fetch(artifact)

    def card(self, model: ModelRef) -> ModelCard:
        """Give the card of exactly this model.

        Raises:
            ModelNotFound: as `fetch`.
        """
        _, artifact = self._find(model)
        return artifact.card

    def _find(self, model: ModelRef) -> tuple[ModelSource, Artifact]:
        for source in self._sources:
            for artifact in source.artifacts():
                if artifact.card.ref == model:
                    return source, artifact
        raise ModelNotFound(f"{model.name}@{model.version} is not here, or is another one")

    def _current(self, name: str, cards: dict[tuple[str, int], ModelCard]) -> str | None:
        """Give the promoted version of those there are, or else the newest."""
        versions = {version for known, version in cards if known == name}
        promoted = [one for one in self.promotions(name).history if int(one) in versions]
        return promoted[-1] if promoted else str(max(versions)) if versions else None

    def _cards(self) -> dict[tuple[str, int], ModelCard]:
        return {
            (artifact.card.name, int(artifact.card.version)): artifact.card
            for source in reversed(self._sources)
            for artifact in source.artifacts()
        }
