"""The model catalog: which models exist, and which version of each is promoted."""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pydantic import BaseModel

from worker.jobs.errors import ModelNotFound, ModelUnavailable
from worker.jobs.models.artifact import CARD_NAME, Artifact, ModelCard, ModelDetails
from worker.jobs.record import ModelRef

PROMOTED_NAME = "promoted.json"
# The most versions that promoted.json keeps.
HISTORY = 50
_REFERENCE = re.compile(r"(?P<name>[a-z0-9][a-z0-9_-]*)(@(?P<version>[0-9]+))?")


class Promotions(BaseModel):
    """The promoted versions of a model, the current one last; the content of promoted.json."""

    history: tuple[str, ...] = ()


class ModelSource(Protocol):
    """Artifacts as <name>/<version>/, each with its card.

    Methods raise StorageUnavailable if the source does not answer.
    """

    def artifacts(self) -> Sequence[Artifact]:
        """List all versions of all models; the list may be a few seconds old."""

    def promotions(self, name: str) -> Promotions:
        """Read the promotions of a model; they may be a few seconds old."""

    def fetch(self, artifact: Artifact) -> Path:
        """Return the local folder of a version."""

    def put(self, folder: Path, artifact: Artifact) -> None:
        """Store a copy of the artifact in `folder`, completely or not at all."""

    def promote(self, name: str, promotions: Promotions) -> None:
        """Write the promotions of a model."""


class ModelCatalog:
    """The models of several sources; an earlier source hides the same version of a later one."""

    def __init__(self, sources: Sequence[ModelSource], default: str) -> None:
        self._sources = sources
        self._default = default

    @property
    def registry(self) -> ModelSource:
        """The source to which versions and promotions are added."""
        return self._sources[0]

    def all(self) -> list[ModelCard]:
        """List every version of every model, by name, newest first."""
        return sorted(self._cards().values(), key=lambda card: (card.name, -int(card.version)))

    def resolve(self, reference: str | None) -> ModelCard:
        """Find `name@version`, or the current version of `name` or, for None, of the default model.

        Several references that are joined by "+" give one card for all.

        Raises:
            ModelNotFound: the text lists the existing models.
            JobRefused: as `ModelCard.joined`.
        """
        reference = reference or self._default
        if "+" in reference:
            return ModelCard.joined([self.resolve(one) for one in reference.split("+")])
        match = _REFERENCE.fullmatch(reference)
        cards = self._cards()
        if match:
            version = match["version"] or self._current(match["name"], cards)
            # A version may be written with leading zeros.
            if version and (card := cards.get((match["name"], int(version)))):
                return card
        known = ", ".join(f"{card.name}@{card.version}" for card in self.all())
        advice = f"use one of {known}" if known else "add one with `piqueue models add`"
        raise ModelNotFound(f"no model {reference!r}: {advice}")

    def promotions(self, name: str) -> Promotions:
        """Read the promotions of a model."""
        for source in self._sources:
            if (found := source.promotions(name)).history:
                return found
        return Promotions()

    def fetch(self, model: ModelRef) -> Path:
        """Return the local folder of exactly this model.

        Raises:
            ModelNotFound: no source has this version with this hash.
        """
        source, artifact = self._find(model)
        return source.fetch(artifact)

    def card(self, model: ModelRef) -> ModelCard:
        """The card of exactly this model.

        Raises:
            ModelNotFound: as `fetch`.
        """
        _, artifact = self._find(model)
        return artifact.card

    def score_counts(self, model: ModelRef) -> dict[str, tuple[int, ...]]:
        """The `score_counts` in the card of exactly this model.

        Raises:
            ModelNotFound: as `fetch`.
        """
        _, artifact = self._find(model)
        return artifact.score_counts

    def details(self, model: ModelRef) -> ModelDetails:
        """What the card of exactly this model says to people.

        Raises:
            ModelNotFound: as `fetch`.
        """
        _, artifact = self._find(model)
        return artifact.details

    def add(self, folder: Path) -> ModelCard:
        """Copy the artifact in `folder` into the registry; the promoted version stays the same.

        Raises:
            ModelUnavailable: a hash differs, or another model has that name and version.
        """
        artifact = Artifact.parse((folder / CARD_NAME).read_bytes())
        artifact.verify(folder)
        card = artifact.card
        versions = [known for known in self.all() if known.name == card.name]
        for known in versions:
            if int(known.version) == int(card.version):
                _, present = self._find(known.ref)
                if present.digest == artifact.digest:
                    return card
                raise ModelUnavailable(
                    f"another {card.name}@{card.version} exists, and a version never changes: use "
                    "another version number"
                )
        if versions and not self.promotions(card.name).history:
            # Without a promotion the newest version is current, which would now be this one.
            current = self.resolve(card.name).version
            self.registry.promote(card.name, Promotions(history=(current,)))
        self.registry.put(folder, artifact)
        return card

    def promote(self, name: str, version: str) -> ModelCard:
        """Promote a version: jobs that name only the model get it.

        Raises:
            ModelNotFound: the version does not exist.
        """
        card = self.resolve(f"{name}@{version}")
        before = self.resolve(name)
        history = self.promotions(name).history or (before.version,)
        if history[-1] != card.version:
            history = (*history, card.version)
        self.registry.promote(name, Promotions(history=history[-HISTORY:]))
        return card

    def roll_back(self, name: str) -> ModelCard:
        """Promote the previously promoted version again.

        Raises:
            ModelNotFound: the model does not exist, or no earlier version was promoted.
        """
        self.resolve(name)
        history = self.promotions(name).history[:-1]
        if not history:
            raise ModelNotFound(
                f"no version of {name} was promoted before the current one: promote the one to use"
            )
        card = self.resolve(f"{name}@{history[-1]}")
        self.registry.promote(name, Promotions(history=history))
        return card

    def _find(self, model: ModelRef) -> tuple[ModelSource, Artifact]:
        for source in self._sources:
            for artifact in source.artifacts():
                if artifact.card.ref == model:
                    return source, artifact
        raise ModelNotFound(
            f"no source has {model.name}@{model.version} with the hash {model.sha256[:16]}…: "
            "add that version again"
        )

    def _current(self, name: str, cards: dict[tuple[str, int], ModelCard]) -> str | None:
        """The promoted version if it exists, else the newest."""
        versions = {version for known, version in cards if known == name}
        promoted = [one for one in self.promotions(name).history if int(one) in versions]
        return promoted[-1] if promoted else str(max(versions)) if versions else None

    def _cards(self) -> dict[tuple[str, int], ModelCard]:
        return {
            (artifact.card.name, int(artifact.card.version)): artifact.card
            for source in reversed(self._sources)
            for artifact in source.artifacts()
        }
