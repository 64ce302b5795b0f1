"""Calibrates scores: of all pictures with a score of 0.8 for a label, 80 % should have it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.artifact.card import Activation, Calibration

# In single precision, a network's most confident scores are 0 and 1, whose logits are infinite.
_EPSILON = 1e-7


def calibrated(
    scores: NDArray[np.floating[Any]], calibration: Calibration | None, activation: Activation
) -> NDArray[np.floating[Any]]:
    """Apply the calibration of a card to the raw scores of its network, (n, n_labels) in 0..1.

    The logit of each label is multiplied by its slope, and its offset is added: for sigmoids this
    is Platt scaling; for a softmax with equal slopes, temperature scaling. For sigmoids, the order
    of the scores for a label does not change.
    """
    if calibration is None:
        return scores
    slopes, offsets = np.asarray(calibration.slopes), np.asarray(calibration.offsets)
    if activation == "sigmoid":
        return np.asarray(1 / (1 + np.exp(-(slopes * logits(scores) + offsets))))
    powers = np.exp(slopes * np.log(np.maximum(scores, _EPSILON)) + offsets)
    return np.asarray(powers / powers.sum(axis=-1, keepdims=True))


def logits(scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """The inverse of the sigmoid; finite even for scores of 0 and 1."""
    clipped = np.clip(scores.astype(np.float64), _EPSILON, 1 - _EPSILON)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))
