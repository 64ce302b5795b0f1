"""What an artifact says of itself in card.json, and whether its files are the ones meant."""

import hashlib
from datetime import date
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, PositiveFloat, ValidationError, model_validator

from model.images.decode import PREPROCESSING

CARD_NAME = "card.json"

EngineName = Literal["litert", "keras"]
Activation = Literal["sigmoid", "softmax"]
# The pixel values a network was trained on, as Keras names the customary ones: `tf` -1..1, `unit`
# 0..1, `raw` 0..255, `torch` and `caffe` less the mean of ImageNet, the latter as BGR.
Scaling = Literal["tf", "unit", "raw", "torch", "caffe"]


class ArtifactInvalid(Exception):
    """An artifact that must not be used, with a sentence that says which file and what to do."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ArtifactFile(_Part):
    """One file of an artifact; `path` is relative to the artifact's folder."""

    path: str = Field(pattern=r"^[^/\\]+$")
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    bytes: int = Field(ge=1)


class Source(_Part):
    """Something the model was made from: pictures or weights, and the terms they came under."""

    model_config = ConfigDict(frozen=True, extra="allow")

    name: str
    terms: str


class Calibration(_Part):
    """What makes the network's scores mean what they say; see `model.calibration`."""

    slopes: tuple[PositiveFloat, ...]
    offsets: tuple[float, ...]
    fitted_on: str = ""


class Card(_Part):
    """One version of a model, as written in its card.json."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")
    version: str = Field(pattern=r"^[0-9]+$")
    labels: tuple[str, ...] = Field(min_length=1)
    thresholds: tuple[float, ...]
    activation: Activation
    # How many scores answer for a picture, best first; all of them if unset.
    top_k: int | None = Field(default=None, ge=1)
    input_size: tuple[int, int]
    preprocessing: str
    # Already part of the model file, which takes the pixels as they are.
    scaling: Scaling = "tf"
    calibration: Calibration | None = None
    files: dict[EngineName, ArtifactFile] = Field(min_length=1)
    # What an inference thread of a worker takes, beside the files; see `model.footprint`.
    memory_bytes: int = Field(ge=1)
    metrics: dict[str, Any] = {}
    sources: tuple[Source, ...] = ()
    created: date
    notes: str = ""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must differ from each other")
        if len(self.thresholds) != len(self.labels):
            raise ValueError("there must be one threshold a label")
        if not all(0 <= threshold <= 1 for threshold in self.thresholds):
            raise ValueError("thresholds must lie between 0 and 1")
        if self.calibration and not (
            len(self.calibration.slopes) == len(self.calibration.offsets) == len(self.labels)
        ):
            raise ValueError("calibration must have one slope and one offset a label")
        if min(self.input_size) < 1:
            raise ValueError("input_size must be (height, width) in pixels")
        return self

    @property
    def sha256(self) -> str:
        """What identifies the model in results: the hash of its LiteRT file, else of its Keras."""
        return (self.files.get("litert") or self.files["keras"]).sha256


def describe_file(path: Path) -> ArtifactFile:
    """The entry of a file in `Card.files`."""
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return ArtifactFile(path=path.name, sha256=sha256, bytes=path.stat().st_size)


def write_card(card: Card, folder: Path) -> None:
    """Write `card` into `folder` as card.json."""
    (folder / CARD_NAME).write_text(card.model_dump_json(indent=2) + "\n", encoding="utf-8")


def load_card(folder: Path, verify: bool = True) -> Card:
    """Read the card of the artifact in `folder`; `verify` compares those of its
    files that are there with their sha256.

    Raises:
        ArtifactInvalid: the card is missing or malformed, a file is not the one meant, or the
            model was trained with another preprocessing than `model.images` does.
    """
    path = folder / CARD_NAME
    try:
        card = Card.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        raise ArtifactInvalid(f"{path} is missing: name the folder of one model version") from None
    except ValidationError as error:
        raise ArtifactInvalid(f"{path} is not a valid card: {error}") from error
    if card.preprocessing != PREPROCESSING:
        raise ArtifactInvalid(
            f"{path} wants the preprocessing {card.preprocessing!r} and this Piqueue does "
            f"{PREPROCESSING!r}: use the Piqueue it was trained with, or train it again"
        )
    if verify:
        for entry in card.files.values():
            if (folder / entry.path).exists() and describe_file(folder / entry.path) != entry:
                raise ArtifactInvalid(
                    f"{folder / entry.path} is not the file its card describes: "
                    "copy the whole artifact again"
                )
    return card


def find_file(card: Card, folder: Path, engine: EngineName) -> Path:
    """Where the artifact in `folder` keeps the file that an engine loads.

    Raises:
        ArtifactInvalid: there is none; an artifact may be shipped without what it does not need.
    """
    if engine not in card.files:
        raise ArtifactInvalid(f"{folder / CARD_NAME} names no {engine} file: choose another engine")
    path = folder / card.files[engine].path
    if not path.is_file():
        raise ArtifactInvalid(f"{path} is missing: copy the whole artifact again")
    return path
