"""One version of a model: its card and its files."""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import date
from heapq import nlargest
from pathlib import Path
from typing import Annotated, Self

import structlog
from pydantic import BaseModel, ConfigDict, Field, JsonValue, NonNegativeInt

from worker.jobs.errors import JobRefused, ModelUnavailable
from worker.jobs.record import ModelRef

CARD_NAME = "card.json"
# As in model.artifact.card, which the job contract does not import: the first one that a card has
# identifies its network.
NETWORKS = ("litert", "keras", "onnx")
# Bins of scores, of equal width from 0 to 1, as in the card of a model.
SCORE_BINS = 10
_Counts = Annotated[tuple[NonNegativeInt, ...], Field(min_length=SCORE_BINS, max_length=SCORE_BINS)]

log = structlog.get_logger()


class ModelFile(BaseModel):
    """One file of an artifact, beside its card."""

    model_config = ConfigDict(frozen=True)

    # A file name without a path: cards may come from strangers.
    path: str = Field(pattern=r"^[^/\\]+$")
    sha256: str


class ModelCard(BaseModel):
    """What a job needs of its model: the exact version and the meaning of its scores."""

    model_config = ConfigDict(frozen=True)

    name: str
    version: str
    sha256: str
    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    # Memory for each inference thread of a worker.
    memory_bytes: int = Field(ge=1)
    created: date
    # How many scores a result has, best first; all of them if unset.
    top_k: int | None = None
    # (height, width) in pixels; jobs of earlier versions have none.
    input_size: tuple[int, int] | None = None
    # The hash of its backbone, if it has a head; models with the same backbone share its work.
    backbone: str | None = None
    # The models, if this stands for several.
    parts: tuple["ModelCard", ...] = ()

    @classmethod
    def joined(cls, parts: Sequence["ModelCard"]) -> "ModelCard":
        """One card for the models of a job; its labels are `name/label`, in the order of the parts.

        Raises:
            JobRefused: two are versions of one model, or take pictures of different sizes.
        """
        for index, part in enumerate(parts):
            if part.name in (earlier.name for earlier in parts[:index]):
                raise JobRefused(f"models: {part.name} is named twice: name it once")
            if part.input_size != parts[0].input_size:
                raise JobRefused(
                    f"models: {part.name} takes pictures of {_pixels(part)} and {parts[0].name} of "
                    f"{_pixels(parts[0])}: submit a job for each"
                )
        ref = ModelRef.joined(part.ref for part in parts)
        return cls(
            name=ref.name,
            version=ref.version,
            sha256=ref.sha256,
            labels=tuple(f"{part.name}/{label}" for part in parts for label in part.labels),
            thresholds=tuple(threshold for part in parts for threshold in part.thresholds),
            memory_bytes=sum(part.memory_bytes for part in parts),
            created=max(part.created for part in parts),
            input_size=parts[0].input_size,
            parts=tuple(parts),
        )

    @property
    def first_backbone(self) -> str | None:
        """The backbone or, of several models, the first of theirs; None if there is none."""
        found = (part.backbone for part in self.parts or (self,))
        return next(filter(None, found), None)

    @property
    def ref(self) -> ModelRef:
        """The reference to this exact model."""
        return ModelRef(self.name, self.version, self.sha256)

    def answer(
        self, scores: Sequence[float], top_k: int | None = None, threshold: float | None = None
    ) -> tuple[dict[str, float], list[str]]:
        """Return the scores of a result by label, and the labels whose score passes the threshold.

        `top_k` limits the scores to the best, sorted; its default is that of the model. `threshold`
        replaces the thresholds of the model. Both apply to each model if there are several.
        """
        if self.parts:
            return self._answer_of_parts(scores, top_k, threshold)
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

    def _answer_of_parts(
        self, scores: Sequence[float], top_k: int | None, threshold: float | None
    ) -> tuple[dict[str, float], list[str]]:
        answer: dict[str, float] = {}
        labels: list[str] = []
        start = 0
        for part in self.parts:
            own = scores[start : start + len(part.labels)]
            start += len(part.labels)
            found, above = part.answer(own, top_k, threshold)
            answer |= {f"{part.name}/{label}": score for label, score in found.items()}
            labels += [f"{part.name}/{label}" for label in above]
        return answer, labels


def _pixels(card: ModelCard) -> str:
    height, width = card.input_size or (0, 0)
    return f"{width}x{height} pixels"


class _ArtifactCard(ModelCard):
    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    version: str = Field(pattern=r"^[0-9]+$")
    sha256: str = ""
    files: dict[str, ModelFile]
    # Other LiteRT files of the same model.
    variants: dict[str, ModelFile] = {}
    score_counts: dict[str, _Counts] = {}


class ModelDetails(BaseModel):
    """What a card says of a model to people; jobs do not need it."""

    model_config = ConfigDict(frozen=True)

    activation: str = ""
    # Figures by the pictures that they were measured on, such as `validation`.
    metrics: dict[str, JsonValue] = {}
    # Pictures and weights that it was made from, and their terms.
    sources: tuple[dict[str, JsonValue], ...] = ()
    notes: str = ""


class Artifact(BaseModel):
    """A version of a model in a source: its card and its files, without card.json."""

    model_config = ConfigDict(frozen=True)

    card: ModelCard
    details: ModelDetails = ModelDetails()
    files: tuple[ModelFile, ...]
    # The SHA-256 of its card.json.
    digest: str
    # How the scores of its validation split are distributed, by label; empty if that is unknown.
    score_counts: dict[str, tuple[int, ...]] = {}

    @classmethod
    def parse(cls, card_json: bytes) -> Self:
        """Read a card.json; the hash of its head or network identifies the model.

        Raises:
            ValueError: it is not a card.
        """
        card = _ArtifactCard.model_validate_json(card_json)
        head = card.files.get("head")
        network = next((card.files[name] for name in NETWORKS if name in card.files), None)
        if network is None:
            raise ValueError("the card names no LiteRT, Keras or ONNX file: export the model again")
        of_files = {
            "sha256": (head or network).sha256,
            "backbone": head and network.sha256,
        }
        return cls(
            card=ModelCard(
                **card.model_dump(exclude={"files", "variants", "score_counts"}) | of_files
            ),
            details=ModelDetails.model_validate_json(card_json),
            files=(*card.files.values(), *card.variants.values()),
            digest=hashlib.sha256(card_json).hexdigest(),
            score_counts=card.score_counts,
        )

    @classmethod
    def read(cls, card_json: bytes, folder: str) -> Self | None:
        """Read the card.json of `folder`; None, with a warning, if it is invalid."""
        try:
            artifact = cls.parse(card_json)
        except ValueError as error:
            log.warning("card_ignored", folder=folder, reason=str(error))
            return None
        if folder != f"{artifact.card.name}/{artifact.card.version}":
            log.warning("card_ignored", folder=folder, reason="its card names another version")
            return None
        return artifact

    def names_in(self, folder: Path) -> list[str]:
        """List the files of this artifact in `folder`, the card last."""
        names = [file.path for file in self.files if (folder / file.path).exists()]
        return [*names, CARD_NAME]

    def verify(self, folder: Path) -> None:
        """Compare the files in `folder` with the card.

        Raises:
            ModelUnavailable: the hash of a file differs, or the model file is missing.
        """
        for file in self.files:
            path = folder / file.path
            if not path.exists() and file.sha256 not in (self.card.sha256, self.card.backbone):
                continue  # the file of another engine or variant
            if not path.is_file() or _sha256(path) != file.sha256:
                raise ModelUnavailable(
                    f"{file.path} of {self.card.name}@{self.card.version} is missing or "
                    f"differs from the hash in its {CARD_NAME}: add that version again"
                )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
