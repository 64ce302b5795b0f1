"""Reads and validates the two YAML files of a training run."""

import re
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

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
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails

from model.artifact.card import Activation, Source
from model.training.backbones import BACKBONES, BackboneName


class TrainingError(ValueError):
    """A wrong setting, file or row prevents training; the message says where and what to change."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class DataConfig(_Strict):
    """The folder of the pictures, and the columns of the CSV file that describe them."""

    input_shape: tuple[PositiveInt, PositiveInt, PositiveInt] = (224, 224, 3)
    """(height, width, channels) of the model's input."""
    resize_shape: tuple[PositiveInt, PositiveInt] = (224, 224)
    """(height, width) that every picture is resized to."""
    images_base_path: Path
    targets: Annotated[tuple[str, ...], Field(min_length=1)]
    label_col: str | None = None
    """Column that names the one label of each picture, for a softmax; without it, each of `targets`
    is a column of 0 and 1, for a sigmoid per label."""
    image_name_col: str = "name"
    split_col: str = "split"
    """Column of `train` or `val`; without it, a fifth of each label set is used for validation."""
    group_col: str = "group"
    """Column that names what pictures belong together, such as a video or a place: the pictures of
    a group are in one fold and one split. It may be missing, and its cells may be empty."""
    use_guessed: bool = False
    """Whether rows are used whose column `guessed` says that nobody has confirmed their labels."""
    sources: tuple[Source, ...] = ()
    """Origin and terms of the pictures; copied into the card."""

    @model_validator(mode="after")
    def _shapes_agree(self) -> Self:
        if self.input_shape != (*self.resize_shape, 3):
            raise ValueError(
                f"input_shape must be resize_shape and 3 channels, {[*self.resize_shape, 3]}, "
                f"but is {list(self.input_shape)}"
            )
        if min(self.resize_shape) < 32:
            raise ValueError("resize_shape must be at least 32 by 32, the minimum of all backbones")
        columns = [self.image_name_col, self.split_col, self.group_col, *self.label_columns]
        if len({*columns}) < len(columns) or len({*self.targets}) < len(self.targets):
            raise ValueError(
                "targets, label_col, image_name_col, split_col and group_col must all be different "
                "columns"
            )
        if self.label_col and len(self.targets) < 2:
            raise ValueError("targets must have at least two labels for a label_col")
        return self

    @property
    def label_columns(self) -> tuple[str, ...]:
        """The columns that say which labels a picture has."""
        return (self.label_col,) if self.label_col else self.targets

    @property
    def activation(self) -> Activation:
        """The activation of the network's scores."""
        return "softmax" if self.label_col else "sigmoid"


ClassWeights = Literal["none", "balanced"]
# Fits without each fold, with other random numbers.
REPEATS = 2


class TrainingConfig(_Strict):
    """Settings of training; the defaults are those of the bundled model."""

    use_augmentation: bool = True
    batch_size: PositiveInt = 32
    epochs: NonNegativeInt = 8
    """Passes over the training pictures in fine-tuning; 0 trains only the head."""
    initial_learning_rate: PositiveFloat = 2e-4
    """Of fine-tuning; decays to zero along a cosine."""
    model_path: Path
    """The artifact folder to write, ending in `<name>/<version>`, such as scenes/1."""
    runs_path: Path = Path("runs")
    """Folder of runs; each writes its logs and checkpoints to a subfolder `<name>-<version>`."""
    backbone: BackboneName = "MobileNetV2"
    """The network that training starts from; see `model.training.backbones`."""
    backbone_width: float = 1.0
    """Factor of the number of its channels, Keras' `alpha`: 0.35, 0.5, 0.75, 1.0, 1.3 or 1.4 of
    MobileNetV2, 0.75 or 1.0 of MobileNetV3, and 1.0 of EfficientNetV2B0."""
    base_weights: str = "imagenet"
    """`imagenet` (downloaded by Keras), `none` (random), or a .weights.h5 file of the backbone."""
    base_weights_sha256: Annotated[str | None, Field(pattern="^[0-9a-f]{64}$")] = None
    """SHA-256 of the file of `base_weights`; another file is refused. The card has it in
    `training`. Without this setting, a download is checked by the MD5 that Keras publishes, and
    that of MobileNetV2, which has none, only for the right shapes."""
    seed: NonNegativeInt = 1
    head_epochs: PositiveInt = 10
    head_learning_rate: PositiveFloat = 1e-3
    fine_tune_from_block: int = Field(default_factory=lambda given: _default_block(given))
    """The first of the backbone's blocks that is fine-tuned; the earlier ones are frozen. 1 to 16
    of MobileNetV2 (default 11), 10 of MobileNetV3Small (7), 14 of MobileNetV3Large (10), and 20 of
    EfficientNetV2B0 (13)."""
    augmented_copies: PositiveInt = 8
    """Different augmentations of each picture; more of them need more memory, not more epochs."""
    class_weights: ClassWeights = "none"
    """`balanced` gives the pictures with and without a label the same total weight, for a softmax
    the pictures of each label; `none` gives each picture the same weight."""
    label_smoothing: Annotated[float, Field(ge=0, lt=0.5)] = 0.0
    mixup: NonNegativeFloat = 0.0
    """Parameter of the Beta distribution by which training blends pictures with each other, which
    reduces overconfidence; 0 disables blending."""
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.2
    weight_decay: NonNegativeFloat = 1e-4
    early_stopping_patience: NonNegativeInt = 0
    """Fine-tuning stops after this many epochs without a lower held-out loss; 0 disables this."""
    folds: Annotated[int, Field(ge=2)] = 4
    """Number of parts of the training pictures. The network is fitted twice without each part, and
    the model is the mean of all fits. The mean of the two fits without a part scores that part, to
    fit calibration and thresholds."""
    int8: bool = True
    """Add an int8 variant, which takes about half the time on many processors, if it is as good."""

    @property
    def fit_count(self) -> int:
        """The number of fits, of which the model is the mean."""
        return REPEATS * self.folds

    @property
    def run_path(self) -> Path:
        """The folder of this run's logs and checkpoints."""
        return self.runs_path / f"{self.model_path.parent.name}-{self.model_path.name}"

    @field_validator("backbone_width", "fine_tune_from_block")
    @classmethod
    def _of_the_backbone(cls, value: float, info: ValidationInfo) -> float:
        if name := info.data.get("backbone"):  # else, that is what is wrong
            backbone = BACKBONES[name]
            if info.field_name == "backbone_width" and value not in backbone.widths:
                widths = ", ".join(map(str, backbone.widths))
                raise ValueError(f"must be one of {widths} for {name}")
            if info.field_name == "fine_tune_from_block" and not 1 <= value <= len(backbone.blocks):
                raise ValueError(f"must be 1 to {len(backbone.blocks)} for {name}")
        return value

    @field_validator("model_path")
    @classmethod
    def _name_and_version(cls, path: Path) -> Path:
        if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*/[0-9]+", f"{path.parent.name}/{path.name}"):
            raise ValueError("must end in a name and a version number, such as scenes/1")
        return path


def _default_block(given: dict[str, Any]) -> int:
    return BACKBONES[given.get("backbone", "MobileNetV2")].fine_tune_from_block


# Settings that a preset replaces. `smoke` checks that every step works, in a minute; its model is
# poor. `laptop` takes minutes on two cores and is nearly as good as `full`, the bundled model's.
PRESETS: dict[str, dict[str, int]] = {
    "smoke": {"epochs": 1, "head_epochs": 2, "augmented_copies": 1, "folds": 2},
    "laptop": {"epochs": 4, "head_epochs": 10, "augmented_copies": 4, "folds": 4},
    "full": {"epochs": 8, "head_epochs": 10, "augmented_copies": 8, "folds": 4},
}

_SHOWN_CHARS = 60

Config = TypeVar("Config", bound=_Strict)


def read_config(kind: type[Config], path: Path | None, **overrides: object) -> Config:
    """The settings in the YAML file `path`, replaced by those of `overrides` that are not None.

    Raises TrainingError, which names the file and every wrong setting.
    """
    settings = {} if path is None else read_yaml(path)
    settings |= {key: value for key, value in overrides.items() if value is not None}
    try:
        return kind.model_validate(settings)
    except ValidationError as error:
        # A default that depends on another setting is unknown while any setting is wrong.
        errors = [e for e in error.errors() if e["type"] != "default_factory_not_called"]
        wrong = [_wrong(kind, e) for e in errors]
        known = f"correct them; the settings are {', '.join(kind.model_fields)}"
        where = "the settings are wrong" if path is None else f"{path} has wrong settings"
        raise TrainingError("\n  ".join([f"{where}:", *wrong, known])) from error


def _wrong(kind: type[_Strict], error: ErrorDetails) -> str:
    """One line about a wrong setting; one that does not exist gets the nearest that does."""
    name = ".".join(map(str, error["loc"])) or "file"
    if error["type"] != "extra_forbidden" or len(error["loc"]) > 1:
        return f"{name}: {error['msg']}{_given(error['input'])}"
    near = get_close_matches(name, kind.model_fields, 1)
    return f"{name}: there is no such setting{f': did you mean {near[0]}?' if near else ''}"


def _given(value: object) -> str:
    """What a wrong setting is, if that is short: YAML reads words such as no as false."""
    is_short = isinstance(value, str | int | float | bool) and len(str(value)) <= _SHOWN_CHARS
    return f" (it is {value!r})" if is_short else ""


class _Loader(yaml.SafeLoader):
    """Refuses a setting that is there twice, of which only the last would count."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            name = str(key.value)
            if name in names:
                raise yaml.MarkedYAMLError(
                    problem=f"{name} is there twice: remove one of the two",
                    problem_mark=key.start_mark,
                )
            names.add(name)
        return super().construct_mapping(node, deep)


def read_yaml(path: Path) -> dict[str, object]:
    """The settings in a YAML file; raises TrainingError if it has none."""
    try:
        # Bytes, so that a byte order mark says the encoding.
        settings = yaml.load(path.read_bytes(), _Loader)  # noqa: S506 - it is a safe one
    except OSError as error:
        reason = error.strerror or error
        raise TrainingError(f"{path} cannot be read ({reason}): correct the path") from error
    except yaml.YAMLError as error:
        raise TrainingError(f"{path} cannot be read as YAML ({error}): correct it") from error
    if not isinstance(settings, dict):
        raise TrainingError(f"{path} must contain lines of `setting: value`")
    return settings
