"""Confidence intervals: how far figures vary if other pictures of the same kind are drawn."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from model.artifact.card import Activation

DRAW_COUNT = 500
# The share of the draws in an interval.
CONFIDENCE = 0.95
_BIN_COUNT = 10

Draws = NDArray[np.float64]


def draw_figures(
    labels: NDArray[Any],
    scores: NDArray[np.floating[Any]],
    thresholds: Sequence[float] | NDArray[np.floating[Any]],
    activation: Activation | None = None,
    groups: NDArray[np.intp] | None = None,
) -> dict[str, Draws]:
    """Figures of `model.training.evaluation.evaluate` for each of `DRAW_COUNT` bootstrap draws.

    A draw has as many `groups` (n,), by default pictures, as there are, with replacement. The same
    number of pictures is drawn alike for every model, so that differences of figures are paired.
    A label that no picture of a draw has does not count for its average precision.

    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    truth = labels > 0.5
    count, label_count = truth.shape
    which = np.minimum((scores * _BIN_COUNT).astype(int), _BIN_COUNT - 1)
    distance = np.zeros((count, _BIN_COUNT))
    rows = np.repeat(np.arange(count), label_count)
    np.add.at(distance, (rows, which.ravel()), (scores - truth).ravel())
    columns = {
        "binary_accuracy": ((scores > 0.5) == truth).mean(axis=1),
        "binary_accuracy_at_thresholds": ((scores > np.asarray(thresholds)) == truth).mean(axis=1),
    }
    if activation == "softmax":
        columns["accuracy"] = truth.argmax(axis=1) == scores.argmax(axis=1)
    ranking = Ranking(truth, scores)
    units, unit = np.unique(np.arange(count) if groups is None else groups, return_inverse=True)
    random = np.random.default_rng(0)
    found: dict[str, list[float]] = {}
    for _ in range(DRAW_COUNT):
        drawn = random.integers(len(units), size=len(units))
        weights = np.bincount(drawn, minlength=len(units))[unit].astype(np.float64)
        total = weights.sum()
        figures = {name: float(weights @ column / total) for name, column in columns.items()}
        error = np.abs(weights @ distance).sum() / (total * label_count)
        figures["macro_average_precision"] = ranking.macro_average_precision(weights)
        figures["expected_calibration_error"] = float(error)
        for name, value in figures.items():
            found.setdefault(name, []).append(value)
    return {name: np.array(values) for name, values in found.items()}


def interval(draws: Draws) -> list[float] | None:
    """The low and the high end of a confidence interval; None if the figure is undefined."""
    if np.isnan(draws).all():
        return None
    tail = (1 - CONFIDENCE) / 2
    low, high = np.nanquantile(draws, [tail, 1 - tail])
    return [round(float(low), 4), round(float(high), 4)]


class Ranking:
    """Scores in descending order, for the average precision of weighted pictures.

    It is that of scikit-learn, which sorts the scores again for each draw and label: with 1,000
    pictures and 6 labels, it needs 20 times as long.
    """

    def __init__(self, truth: NDArray[np.bool_], scores: NDArray[np.floating[Any]]) -> None:
        self._order = np.argsort(-scores, axis=0, kind="stable")
        ordered = np.take_along_axis(scores, self._order, axis=0)
        self._truth = np.take_along_axis(truth, self._order, axis=0)
        # The last position with the same score: pictures with equal scores count together.
        is_last = np.ones(scores.shape, np.bool_)
        is_last[:-1] = ordered[1:] != ordered[:-1]
        at = np.where(is_last, np.arange(len(scores))[:, None], len(scores))
        self._last = np.minimum.accumulate(at[::-1], axis=0)[::-1]

    def macro_average_precision(self, weights: NDArray[np.float64]) -> float:
        """The mean average precision of the labels that pictures of weights (n,) > 0 have."""
        all_ = weights[self._order]
        hits = all_ * self._truth
        given = np.maximum(np.cumsum(all_, axis=0), 1e-12)
        precision = np.take_along_axis(np.cumsum(hits, axis=0) / given, self._last, axis=0)
        positives = hits.sum(axis=0)
        known = positives > 0
        if not known.any():
            return float("nan")
        return float(((hits * precision).sum(axis=0)[known] / positives[known]).mean())
