"""Binary cross-entropy over labels that may be rare, may come together and may be mixed."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from model.training.config import ClassWeights
from model.training.data.dataset import Labels

_EPSILON = 1e-7


def answer_weights(labels: Labels, kind: ClassWeights) -> NDArray[np.float32]:
    """What a no and a yes weigh for each label, (2, n_labels), from `labels` (n, n_labels).

    Balanced, the pictures with a label weigh as much together as those without, and all of them
    as much as they are.
    """
    if kind is ClassWeights.NONE:
        return np.ones((2, labels.shape[1]), np.float32)
    yes = labels.mean(axis=0)
    return np.asarray(0.5 / np.stack([1 - yes, yes]), np.float32)


def make_loss(weights: NDArray[np.float32], smoothing: float) -> Callable[[Any, Any], Any]:
    """Weighted binary cross-entropy of (batch, n_labels), for Keras; truth lies from 0 to 1."""
    no, yes = weights

    def loss(truth: Any, scores: Any) -> Any:
        smooth = truth * (1 - smoothing) + smoothing / 2
        each = keras.ops.binary_crossentropy(smooth, scores)
        return keras.ops.mean(each * (no + truth * (yes - no)), axis=-1)

    return loss


def binary_accuracy(truth: Any, scores: Any) -> Any:
    """The share of right answers at 0.5, for Keras; what is mixed counts as what it is most of."""
    return keras.ops.mean(keras.ops.equal(truth > 0.5, scores > 0.5), axis=-1)


def cross_entropy(truth: Labels, scores: NDArray[np.float32]) -> float:
    """Mean binary cross-entropy, without weights and smoothing."""
    sure = np.clip(scores, _EPSILON, 1 - _EPSILON)
    return -float(np.mean(truth * np.log(sure) + (1 - truth) * np.log1p(-sure)))
