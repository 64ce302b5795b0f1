"""Calibrated scores: of all pictures scored 0.8 for a label, eight in ten should have it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.artifact.card import Activation, Calibration

# Single precision rounds a network's surest scores to 0 and 1, whose logits are infinite.
_EPSILON = 1e-7


def calibrated(
    scores: NDArray[np.floating[Any]], calibration: Calibration | None, activation: Activation
) -> NDArray[np.floating[Any]]:
    """A network's own `scores`, (n, n_labels) of 0 to 1, as the calibration in its card has them.

    Each label's logit is multiplied by its slope and moved by its offset: Platt scaling for
    sigmoids; for a softmax, temperature scaling where all slopes are alike. The order of a
    sigmoid's scores for a label stays.
    """
    if calibration is None:
        return scores
    slopes, offsets = np.asarray(calibration.slopes), np.asarray(calibration.offsets)
    if activation == "sigmoid":
        sigmoid: NDArray[np.float64] = 1 / (1 + np.exp(-(slopes * logits(scores) + offsets)))
        return sigmoid
    powers = np.exp(slopes * np.log(np.maximum(scores, _EPSILON)) + offsets)
    softmax: NDArray[np.float64] = powers / powers.sum(axis=-1, keepdims=True)
    return softmax


def logits(scores: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """What a sigmoid makes `scores` of; finite even for 0 and 1."""
    sure = np.clip(scores.astype(np.float64), _EPSILON, 1 - _EPSILON)
    unsquashed: NDArray[np.float64] = np.log(sure) - np.log1p(-sure)
    return unsquashed
