"""How often scores are in each tenth from 0 to 1, for each label."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

# The first bin counts scores from 0 to less than 0.1, the last those from 0.9 to 1.
BINS = 10
# A model with more labels has one histogram, of the highest score of each picture.
MOST_LABELS = 20
HIGHEST = "*"

ScoreCounts = dict[str, tuple[int, ...]]


def names_of(labels: Sequence[str]) -> tuple[str, ...]:
    """What is counted for a model with these labels: each of them, or `HIGHEST`."""
    return tuple(labels) if len(labels) <= MOST_LABELS else (HIGHEST,)


def count_scores(scores: NDArray[Any], labels: Sequence[str]) -> ScoreCounts:
    """The counts of each bin of calibrated `scores` (n, n_labels), from 0 to 1, by label."""
    names = names_of(labels)
    if len(names) < scores.shape[1]:
        scores = scores.max(axis=1, keepdims=True)
    bins = np.minimum((scores * BINS).astype(np.intp), BINS - 1)
    counts = np.bincount((bins + np.arange(len(names)) * BINS).ravel(), minlength=len(names) * BINS)
    rows = counts.reshape(len(names), BINS).tolist()
    return {name: tuple(row) for name, row in zip(names, rows, strict=True)}
