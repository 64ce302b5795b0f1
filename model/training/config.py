"""The two YAML files of a training run, read and checked."""

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self, TypeVar

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    field_validator,
    model_validator,
)

from model.artifact.card import Source


class TrainingError(ValueError):
    """A setting, a file or a row that stops a training run; the message says what to change."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Strict):
    """Where the pictures are and which columns of the CSV describe them."""

    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (224, 224, 3)
    """(height, width, channels) of the model's input."""
    resize_shape: tuple[PositiveInt, PositiveInt] = (224, 224)
    """(height, width) every picture is resized to."""
    images_base_path: Path
    targets: Annotated[tuple[str, ...], Field(min_length=1)]
    image_name_col: str = "name"
    split_col: str = "split"
    """Column of `train` or `val`; a CSV without it is split by label set, 80 to 20."""
    sources: tuple[Source, ...] = ()
    """Where the pictures come from and on what terms; copied into the card."""

    @model_validator(mode="after")
    def _shapes_agree(self) -> Self:
        if self.input_shape != (*self.resize_shape, 3):
            raise ValueError(
                f"input_shape must be resize_shape and 3 channels, "
                f"{[*self.resize_shape, 3]}, but is {list(self.input_shape)}"
            )
        if min(self.resize_shape) < 32:
            raise ValueError("resize_shape must be at least 32 by 32, the least MobileNetV2 takes")
        columns = [self.image_name_col, self.split_col, *self.targets]
        if len(set(columns)) != len(columns):
            raise ValueError("targets, image_name_col and split_col must all be different columns")
        return self


class ClassWeights(StrEnum):
    """How much a picture that has a label weighs against one that has not."""

    NONE = "none"
    BALANCED = "balanced"


class TrainingConfig(_Strict):
    """How the network is trained; the defaults are the settings of the bundled model."""

    use_augmentation: bool = True
    batch_size: PositiveInt = 32
    epochs: NonNegativeInt = 8
    """Passes over the train pictures while fine-tuning; 0 trains the head only."""
    initial_learning_rate: PositiveFloat = 2e-4
    """Of fine-tuning; falls to zero along a cosine."""
    model_path: Path
    """The artifact folder to write, `<name>/<version>`, as in scenes/1."""
    runs_path: Path = Path("runs")
    """Logs of each run, and while it lasts what it needs to go on after a crash, are in the folder
    `<name>-<version>` of this one."""

    base_weights: str = "imagenet"
    """`imagenet` (downloaded by Keras), `none`, or a .weights.h5 file of MobileNetV2."""
    seed: NonNegativeInt = 1
    head_epochs: PositiveInt = 10
    head_learning_rate: PositiveFloat = 1e-3
    fine_tune_from_block: Annotated[int, Field(ge=1, le=16)] = 11
    """First of MobileNetV2's blocks that is trained; those before it stay as they are."""
    augmented_copies: PositiveInt = 8
    """Different augmentations made of each picture; more need more memory, not more epochs."""
    class_weights: ClassWeights = ClassWeights.NONE
    """`balanced`: pictures with and without a label weigh the same, however rare it is; else each
    picture weighs the same."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    mixup: NonNegativeFloat = 0.0
    """How strongly pictures are blended with one another in training (the parameter of a Beta
    distribution), which keeps the network from growing too sure; 0: not at all."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    weight_decay: NonNegativeFloat = 1e-4
    early_stopping_patience: NonNegativeInt = 0
    """Epochs without a better loss on the fold held out before fine-tuning stops; 0: never."""
    folds: Annotated[int, Field(ge=2)] = 4
    """Parts the train pictures are cut into. The network is fitted once without each, which
    scores that part for choosing thresholds; the model is the mean of these fits."""

    @field_validator("model_path")
    @classmethod
    def _name_and_version(cls, path: Path) -> Path:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*/[0-9]+", f"{path.parent.name}/{path.name}"):
            raise ValueError("must end in a name and a version number, as in scenes/1")
        return path


class Preset(StrEnum):
    """Named sets of training settings, laid over a file's own."""

    SMOKE = "smoke"
    """Shows that all of it works, in a minute; the model is poor."""
    LAPTOP = "laptop"
    """Ends in minutes on two cores, nearly as good as full."""
    FULL = "full"
    """As the bundled model was trained."""


_LENGTHS = ("epochs", "head_epochs", "augmented_copies", "folds")
_PRESETS: dict[Preset, dict[str, object]] = {
    Preset.SMOKE: dict(zip(_LENGTHS, (1, 2, 1, 2), strict=True)),
    Preset.LAPTOP: dict(zip(_LENGTHS, (4, 10, 4, 4), strict=True)),
    Preset.FULL: {name: TrainingConfig.model_fields[name].default for name in _LENGTHS},
}

Config = TypeVar("Config", bound=_Strict)


def read_config(kind: type[Config], path: Path, **overrides: object) -> Config:
    """The checked settings in the YAML file `path`, with `overrides` (where not None) laid over.

    Raises TrainingError naming the file and every setting that is wrong.
    """
    try:
        settings = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise TrainingError(f"{path} cannot be read as YAML: {error}") from error
    if not isinstance(settings, dict):
        raise TrainingError(f"{path} must hold `setting: value` lines")
    settings |= {key: value for key, value in overrides.items() if value is not None}
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        wrong = [f"{'.'.join(map(str, e['loc'])) or 'file'}: {e['msg']}" for e in error.errors()]
        known = f"(known settings: {', '.join(kind.model_fields)})"
        raise TrainingError("\n  ".join([f"{path} is not right:", *wrong, known])) from error


def preset_overrides(preset: Preset | None) -> dict[str, object]:
    """The settings that `preset` lays over a training configuration."""
    return dict(_PRESETS[preset]) if preset else {}
