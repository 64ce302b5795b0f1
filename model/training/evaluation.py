"""How good scores are, and the threshold a label at which they become a yes."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from model.training.dataset import Labels

Scores = NDArray[np.float32]

_CANDIDATES = np.linspace(0.1, 0.9, 81)


def evaluate(
    labels: Labels, scores: Scores, thresholds: Sequence[float], targets: Sequence[str]
) -> dict[str, float]:
    """Binary accuracy and average precision of `scores` (n, n_labels), over all and a label."""
    at_half = (scores > 0.5) == (labels > 0.5)
    at_thresholds = (scores > np.asarray(thresholds)) == (labels > 0.5)
    precision = average_precision_score(labels, scores, average=None)
    figures = {
        "binary_accuracy": at_half.mean(),
        "binary_accuracy_at_thresholds": at_thresholds.mean(),
        "macro_average_precision": precision.mean(),
    }
    for target, accuracy, average in zip(targets, at_half.mean(axis=0), precision, strict=True):
        figures[f"binary_accuracy_{target}"] = accuracy
        figures[f"average_precision_{target}"] = average
    return {name: round(float(value), 4) for name, value in figures.items()}


def choose_thresholds(labels: Labels, scores: Scores) -> tuple[float, ...]:
    """The threshold of most right answers for each label, from out-of-fold `scores`.

    Among thresholds about as good as the best (within one answer in 500) the one nearest to
    0.5 is taken, so that chance does not choose.
    """
    thresholds = []
    for truth, column in zip(labels.T > 0.5, scores.T, strict=True):
        accuracy = ((column[None] > _CANDIDATES[:, None]) == truth[None]).mean(axis=1)
        good = _CANDIDATES[accuracy >= accuracy.max() - 0.002]
        thresholds.append(round(float(good[np.abs(good - 0.5).argmin()]), 2))
    return tuple(thresholds)
