"""Reads and writes card.json, which describes an artifact, and checks its files against it."""

import hashlib
from codecs import BOM_UTF8
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from model.artifact.score_counts import BINS, names_of
from model.images.decode import PREPROCESSING

CARD_NAME = "card.json"

EngineName = Literal["litert", "keras", "onnx"]
# The first one of these that a card has identifies its network.
ENGINE_NAMES: tuple[EngineName, ...] = get_args(EngineName)
# With a head, the files of the engines are its backbone: they give features, not scores.
FileName = EngineName | Literal["head"]
# `float` is the LiteRT file of `Card.files`, with weights of 16 or 32 bits.
VariantName = Literal["float", "int8"]
Activation = Literal["sigmoid", "softmax"]
# The pixel values a network was trained on, by their names in Keras: `tf` -1..1, `unit` 0..1, `raw`
# 0..255, `torch` and `caffe` with the mean of ImageNet subtracted, `caffe` in the order BGR; or
# `mean_std`, with a mean and deviation that `Card.training` has.
Scaling = Literal["tf", "unit", "raw", "torch", "caffe", "mean_std"]


class ArtifactInvalid(Exception):
    """An artifact must not be used; the message names the file and says what to do."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ArtifactFile(_Part):
    """One file of an artifact; `path` is relative to the artifact's folder."""

    path: str = Field(pattern=r"^[^/\\]+$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=1)


class Source(_Part):
    """Pictures or weights that the model was made from, and the terms of their use."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    terms: str


class Calibration(_Part):
    """Parameters for each label; see `model.artifact.calibration`."""

    slopes: tuple[PositiveFloat, ...]
    offsets: tuple[float, ...]
    fitted_on: str = ""


class Variant(ArtifactFile):
    """A quantized LiteRT file of the same model.

    Its calibration puts its scores on the scale of the float file, so that both have the same
    thresholds.
    """

    calibration: Calibration | None = None
    metrics: dict[str, Any] = {}


class Card(_Part):
    """The contents of a card.json: one version of a model."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    version: str = Field(pattern=r"^[0-9]+$")
    labels: tuple[str, ...] = Field(min_length=1)
    thresholds: tuple[Annotated[float, Field(ge=0, le=1)], ...]
    activation: Activation
    # A prediction has this many scores, best first; all of them if unset.
    top_k: int | None = Field(default=None, ge=1)
    # (height, width) in pixels.
    input_size: tuple[PositiveInt, PositiveInt]
    preprocessing: str
    # For information: the model file scales the pixels itself.
    scaling: Scaling = "tf"
    calibration: Calibration | None = None
    files: dict[FileName, ArtifactFile]
    # Without `float`, which the other fields describe.
    variants: dict[Literal["int8"], Variant] = {}
    # Memory of an inference thread of a worker, without the files; see `model.engines.footprint`.
    memory_bytes: int = Field(ge=1)
    metrics: dict[str, Any] = {}
    # How many calibrated scores of its validation split or, if it has none, out of fold, were in
    # each tenth from 0 to 1, by label; see `model.artifact.score_counts`. Unknown if empty.
    score_counts: dict[str, tuple[NonNegativeInt, ...]] = {}
    # How the model was made: settings, versions of the libraries, hashes of data and base weights.
    training: dict[str, Any] = {}
    sources: tuple[Source, ...] = ()
    created: date
    notes: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must be unique")
        if len(self.thresholds) != len(self.labels):
            raise ValueError("there must be one threshold per label")
        for calibration in (self.calibration, *(one.calibration for one in self.variants.values())):
            if calibration and not (
                len(calibration.slopes) == len(calibration.offsets) == len(self.labels)
            ):
                raise ValueError("calibration must have one slope and one offset per label")
        if not self.files.keys() - {"head"}:
            raise ValueError("files must have one that an engine runs, such as litert")
        if self.variants and "litert" not in self.files:
            raise ValueError("variants must have a litert file, of which they are variants")
        if self.score_counts and (
            set(self.score_counts) != set(names_of(self.labels))
            or any(len(counts) != BINS for counts in self.score_counts.values())
        ):
            raise ValueError(f"score_counts must have {BINS} counts of each label, or of * alone")
        paths = [file.path for file in self.all_files]
        if len(set(paths)) != len(paths):
            raise ValueError("files and variants must be different files")
        return self

    @property
    def all_files(self) -> tuple[ArtifactFile, ...]:
        """The files of all engines and variants."""
        return (*self.files.values(), *self.variants.values())

    @property
    def sha256(self) -> str:
        """Identifies the model in results: the hash of its head, else of its network."""
        return self.files["head"].sha256 if "head" in self.files else self._network.sha256

    @property
    def backbone(self) -> str | None:
        """Identifies the features of a model with a head: the hash of its network."""
        return self._network.sha256 if "head" in self.files else None

    @property
    def _network(self) -> ArtifactFile:
        return next(self.files[name] for name in ENGINE_NAMES if name in self.files)

    def of_variant(self, name: VariantName) -> "Card":
        """The card of one variant: with its LiteRT file, its calibration and its metrics."""
        if name == "float":
            return self
        own = self.variants[name]
        return self.model_copy(
            update={
                "files": self.files | {"litert": own},
                "calibration": own.calibration,
                "metrics": own.metrics,
            }
        )


def describe_file(path: Path) -> ArtifactFile:
    """Return the entry of a file in `Card.files`."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return ArtifactFile(path=path.name, sha256=sha256, bytes=path.stat().st_size)


def write_card(card: Card, folder: Path) -> None:
    """Write `card` into `folder` as card.json."""
    (folder / CARD_NAME).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_card(folder: Path) -> Card:
    """Read the card of the artifact in `folder`, and compare the files there with it.

    Raises:
        ArtifactInvalid: the card is missing or malformed, a file differs from its entry, or the
            model was trained with another preprocessing than `model.images` does.
    """
    path = folder / CARD_NAME
    try:
        card = Card.model_validate_json(path.read_bytes().removeprefix(BOM_UTF8))
    except FileNotFoundError:
        raise ArtifactInvalid(f"{path} is missing: give the folder of one model version") from None
    except ValidationError as error:
        mistakes = "; ".join(
            f"{'.'.join(map(str, one['loc'])) or 'file'}: {one['msg']}" for one in error.errors()
        )
        raise ArtifactInvalid(
            f"{path} is not a valid card ({mistakes}): copy the whole artifact again"
        ) from error
    if card.preprocessing != PREPROCESSING:
        raise ArtifactInvalid(
            f"{path} requires the preprocessing {card.preprocessing!r}, but this Piqueue does "
            f"{PREPROCESSING!r}: use the Piqueue that the model was trained with, or train it again"
        )
    for entry in card.all_files:
        file = folder / entry.path
        if file.exists() and describe_file(file).sha256 != entry.sha256:
            raise ArtifactInvalid(
                f"{file} is not the file that its card describes: copy the whole artifact again"
            )
    return card


def find_file(card: Card, folder: Path, engine: FileName) -> Path:
    """Return the path of the file in `folder` that an engine loads, or of the head.

    Raises:
        ArtifactInvalid: there is none; an artifact may be deployed without the other engine's file.
    """
    if engine not in card.files:
        raise ArtifactInvalid(f"{folder / CARD_NAME} names no {engine} file: choose another engine")
    path = folder / card.files[engine].path
    if not path.is_file():
        raise ArtifactInvalid(f"{path} is missing: copy the whole artifact again")
    return path
