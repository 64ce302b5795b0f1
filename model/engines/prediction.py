"""A prediction, and the checks of what an engine is given and of what it gives."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from model.artifact.card import Activation, Card


class Features(NamedTuple):
    """What a backbone gives for one image: values (n_features,), and the variant that gave them."""

    variant: str
    values: NDArray[np.float32]


@dataclass(frozen=True)
class Prediction:
    """The scores of one image, 0 to 1, in the order of the card's labels.

    `features` are those of its backbones, by `Card.backbone`.
    """

    scores: tuple[float, ...]
    features: Mapping[str, Features] = field(default_factory=dict, compare=False)


def check_images(images: Sequence[NDArray[np.uint8]], card: Card) -> None:
    """Raise ValueError if an image does not have the shape and type that the model takes."""
    shape = (*card.input_size, 3)
    for index, image in enumerate(images):
        if image.shape != shape or image.dtype != np.uint8:
            raise ValueError(
                f"image {index} is {image.dtype} {image.shape}; {card.name} takes uint8 {shape}"
            )


def find_score_fault(scores: NDArray[np.floating[Any]], activation: Activation) -> str | None:
    """Say what is wrong with `scores`, (n, n_labels), or None if they can be right."""
    if not np.isfinite(scores).all() or scores.min() < 0 or scores.max() > 1:
        return f"scores of {scores.min()} to {scores.max()}, not 0 to 1"
    if activation == "softmax" and not np.allclose(scores.sum(axis=1), 1, rtol=0, atol=0.01):
        return f"softmax scores that add up to {scores.sum(axis=1).max():.3f}, not to 1"
    return None
