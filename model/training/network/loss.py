"""Cross-entropy over labels that may be rare and may be blended, for sigmoids and for a softmax."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from model.artifact.card import Activation
from model.training.config import ClassWeights
from model.training.data.dataset import Labels


def answer_weights(
    labels: Labels, kind: ClassWeights, activation: Activation
) -> NDArray[np.float32]:
    """The weights of a no and a yes for each label, (2, n_labels), from `labels` (n, n_labels).

    Balanced, the pictures with a label have the same total weight as those without, and all
    pictures together have a weight of n. For a softmax, which has no weights of a no, the pictures
    of each label have the same total weight.
    """
    if kind == "none":
        return np.ones((2, labels.shape[1]), np.float32)
    # An answer that no picture has counts as half a picture.
    yes = labels.mean(axis=0).clip(0.5 / len(labels), 1 - 0.5 / len(labels))
    if activation == "softmax":
        return np.asarray(np.stack([np.ones_like(yes), 1 / (yes * len(yes))]), np.float32)
    return np.asarray(0.5 / np.stack([1 - yes, yes]), np.float32)


def make_loss(
    weights: NDArray[np.float32], smoothing: float, activation: Activation
) -> Callable[[Any, Any], Any]:
    """Weighted cross-entropy of (batch, n_labels), for Keras; labels are from 0 to 1."""
    no, yes = weights

    def binary(truth: Any, scores: Any) -> Any:
        smooth = truth * (1 - smoothing) + smoothing / 2
        each = keras.ops.binary_crossentropy(smooth, scores)
        return keras.ops.mean(each * (no + truth * (yes - no)), axis=-1)

    def categorical(truth: Any, scores: Any) -> Any:
        smooth = truth * (1 - smoothing) + smoothing / len(yes)
        each = keras.ops.categorical_crossentropy(smooth, scores)
        return each * keras.ops.sum(truth * yes, axis=-1)

    return categorical if activation == "softmax" else binary


def binary_accuracy(truth: Any, scores: Any) -> Any:
    """The share of correct answers at 0.5, for Keras; a blended label is rounded."""
    return keras.ops.mean(keras.ops.equal(truth > 0.5, scores > 0.5), axis=-1)


def top_accuracy(truth: Any, scores: Any) -> Any:
    """Whether the label with the highest score is the right one, for Keras."""
    best = keras.ops.equal(keras.ops.argmax(truth, axis=-1), keras.ops.argmax(scores, axis=-1))
    return keras.ops.cast(best, "float32")


def accuracy_of(activation: Activation) -> Callable[[Any, Any], Any]:
    """The accuracy that training logs."""
    return top_accuracy if activation == "softmax" else binary_accuracy


def cross_entropy(truth: Labels, scores: NDArray[np.float32], activation: Activation) -> float:
    """Mean cross-entropy, without weights and smoothing."""
    ones = np.ones((2, truth.shape[1]), np.float32)
    return float(np.mean(make_loss(ones, 0.0, activation)(truth, scores)))
