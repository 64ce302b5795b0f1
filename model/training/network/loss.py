"""Binary cross-entropy over labels that may be rare, may occur together and may be blended."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from model.training.config import ClassWeights
from model.training.data.dataset import Labels


def answer_weights(labels: Labels, kind: ClassWeights) -> NDArray[np.float32]:
    """The weights of a no and a yes for each label, (2, n_labels), from `labels` (n, n_labels).

    Balanced, the pictures with a label have the same total weight as those without, and all
    pictures together have a weight of n.
    """
    if kind == "none":
        return np.ones((2, labels.shape[1]), np.float32)
    # An answer that no picture has counts as half a picture.
    yes = labels.mean(axis=0).clip(0.5 / len(labels), 1 - 0.5 / len(labels))
    return np.asarray(0.5 / np.stack([1 - yes, yes]), np.float32)


def make_loss(weights: NDArray[np.float32], smoothing: float) -> Callable[[Any, Any], Any]:
    """Weighted binary cross-entropy of (batch, n_labels), for Keras; labels are from 0 to 1."""
    no, yes = weights

    def loss(truth: Any, scores: Any) -> Any:
        smooth = truth * (1 - smoothing) + smoothing / 2
        each = keras.ops.binary_crossentropy(smooth, scores)
        return keras.ops.mean(each * (no + truth * (yes - no)), axis=-1)

    return loss


def binary_accuracy(truth: Any, scores: Any) -> Any:
    """The share of correct answers at 0.5, for Keras; a blended label is rounded."""
    return keras.ops.mean(keras.ops.equal(truth > 0.5, scores > 0.5), axis=-1)


def cross_entropy(truth: Labels, scores: NDArray[np.float32]) -> float:
    """Mean binary cross-entropy, without weights and smoothing."""
    return float(keras.ops.mean(keras.ops.binary_crossentropy(truth, scores)))
