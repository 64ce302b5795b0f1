"""What a user says about a network that is made an artifact, and the pictures that test it."""

from pathlib import Path
from typing import Any, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, PositiveFloat, model_validator

from model.artifact.card import Scaling, Source
from model.images.decode import decode
from model.images.result import ImageRejected

Channels = tuple[float, float, float]
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
# Mean and standard deviation of pixel values 0 to 1; the channels of `caffe` are blue, green, red.
_STATISTICS: dict[Scaling, tuple[Channels, Channels]] = {
    "tf": ((0.5,) * 3, (0.5,) * 3),
    "unit": ((0,) * 3, (1,) * 3),
    "torch": _IMAGENET,
}
_CAFFE_MEAN = (103.939, 116.779, 123.68)


class AdoptionError(ValueError):
    """No artifact can be made of the network as described; the message says what to change."""


class PixelScaling(BaseModel):
    """The pixel values that a network was trained on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    scaling: Scaling
    mean: Channels | None = None
    """Of the red, green and blue pixel values 0 to 1, for the scaling `mean_std`."""
    std: tuple[PositiveFloat, PositiveFloat, PositiveFloat] | None = None
    """As `mean`: the standard deviations."""

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if {self.mean is None, self.std is None} != {self.scaling != "mean_std"}:
            raise ValueError("give mean and std with the scaling mean_std, and only with it")
        return self

    def factors_and_offsets(self) -> tuple[Any, Any]:
        """Factors and offsets of the channels, of pixel values 0 to 255."""
        if self.scaling == "raw":
            return [1.0] * 3, [0.0] * 3
        if self.scaling == "caffe":
            return [1.0] * 3, [-mean for mean in _CAFFE_MEAN]
        given = (self.mean or (), self.std or ())
        mean, std = np.array(_STATISTICS.get(self.scaling, given))
        return (1 / (255 * std)).tolist(), (-mean / std).tolist()


class Description(PixelScaling):
    """The properties of a network that its file does not state.

    The artifact is written to `folder`, `<name>/<version>`. `pictures` are used to test it.
    """

    folder: Path
    labels: tuple[str, ...]
    thresholds: tuple[float, ...]
    pictures: tuple[Path, ...]
    input_size: tuple[int, int] | None = None
    """(height, width) in pixels, if the network takes pictures of any size."""
    top_k: int | None = None
    sources: tuple[Source, ...] = ()

    def card_fields(self) -> dict[str, Any]:
        """The fields of the card that this states."""
        names = {"labels", "thresholds", "scaling", "input_size", "top_k", "sources"}
        fields = self.model_dump(include=names)
        if self.mean:
            fields["training"] = {"mean": self.mean, "std": self.std}
        return fields


def decoded(path: Path, size: tuple[int, int]) -> Any:
    """The pixels of a picture file, resized; raises AdoptionError if it cannot be read."""
    try:
        return decode(path.read_bytes(), size).pixels
    except (OSError, ImageRejected) as error:
        raise AdoptionError(f"{path} cannot be read ({error}): remove it") from error
