"""A prediction, and the check of the images that an engine is given."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from model.artifact.card import Card


@dataclass(frozen=True)
class Prediction:
    """The scores of one image, 0 to 1, in the order of the card's labels."""

    scores: tuple[float, ...]


def check_images(images: Sequence[NDArray[np.uint8]], card: Card) -> None:
    """Raise ValueError if an image does not have the shape and type that the model takes."""
    shape = (*card.input_size, 3)
    for index, image in enumerate(images):
        if image.shape != shape or image.dtype != np.uint8:
            raise ValueError(
                f"image {index} is {image.dtype} {image.shape}; {card.name} takes uint8 {shape}"
            )
