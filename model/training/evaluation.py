"""Evaluates scores, fits their calibration and chooses thresholds."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score

from model.artifact.calibration import calibrated, logits
from model.artifact.card import Activation, Calibration
from model.training.data.dataset import Labels

Scores = NDArray[np.floating[Any]]

BIN_COUNT = 10

_CANDIDATES = np.linspace(0.1, 0.9, 81)


@dataclass(frozen=True)
class Decision:
    """How raw scores become calibrated scores and labels, and what that gives out of fold.

    `scores` and `used_thresholds` (n, n_labels) are those of each picture by a calibration and
    thresholds that were fitted on the other folds, in the same way.
    """

    calibration: Calibration | None
    thresholds: tuple[float, ...]
    scores: Scores
    used_thresholds: Scores


def decide(
    labels: Labels, raw: Scores, folds: NDArray[np.intp], fitted_on: str, activation: Activation
) -> Decision:
    """Fit calibration and thresholds, and keep each only if it is better out of fold.

    `raw` (n, n_labels) are scores of networks that never saw these pictures. A calibration is
    better if its log loss is lower, and thresholds if they give more correct labels than 0.5.
    """
    unseen = cross_calibrated(labels, raw, folds, activation)
    keep = log_loss(labels, unseen, activation) < log_loss(labels, raw, activation)
    calibration = fit_calibration(labels, raw, fitted_on, activation) if keep else None
    scores = unseen if keep else raw
    halves = np.full(raw.shape, 0.5)
    chosen = np.empty(raw.shape)
    for fold in np.unique(folds):
        inside, others = folds == fold, folds != fold
        # As the model gets them: on the scores that its calibration was fitted on.
        fitted = _recalibrated(labels[others], raw[others], activation) if keep else raw[others]
        chosen[inside] = choose_thresholds(labels[others], fitted, activation)
    truth = labels > 0.5
    correct = [((scores > each) == truth).mean() for each in (halves, chosen)]
    if correct[1] > correct[0]:
        fitted = calibrated(raw, calibration, activation)
        thresholds = choose_thresholds(labels, fitted, activation)
        return Decision(calibration, thresholds, scores, chosen)
    return Decision(calibration, (0.5,) * raw.shape[1], scores, halves)


def cross_calibrated(
    labels: Labels, raw: Scores, folds: NDArray[np.intp], activation: Activation
) -> Scores:
    """The scores of each fold, with the calibration that was fitted on the other folds."""
    unbiased = np.empty_like(raw)
    for fold in np.unique(folds):
        inside = folds == fold
        calibration = fit_calibration(labels[~inside], raw[~inside], "the other folds", activation)
        unbiased[inside] = calibrated(raw[inside], calibration, activation)
    return unbiased


def _recalibrated(labels: Labels, raw: Scores, activation: Activation) -> Scores:
    return calibrated(raw, fit_calibration(labels, raw, "these", activation), activation)


def log_loss(labels: Labels, scores: Scores, activation: Activation) -> float:
    """The mean negative logarithm of the chance that `scores` give to the truth.

    For sigmoids, the truth is a yes or no for each label; for a softmax, the label of a picture.
    """
    truth = labels > 0.5
    likely = scores[truth] if activation == "softmax" else np.where(truth, scores, 1 - scores)
    return float(-np.log(np.maximum(likely, 1e-12)).mean())


def evaluate(
    labels: Labels,
    scores: Scores,
    thresholds: Sequence[float] | Scores,
    targets: Sequence[str],
    activation: Activation,
) -> dict[str, float]:
    """Binary accuracy, average precision and calibration error of `scores`, (n, n_labels).

    `thresholds` are one for each label, or (n, n_labels). The first two figures are given for all
    labels together and for each label. For a softmax, `accuracy` is the share of pictures whose own
    label has the highest score.
    """
    at_half = (scores > 0.5) == (labels > 0.5)
    at_thresholds = (scores > np.asarray(thresholds)) == (labels > 0.5)
    # A float for one label.
    precision = np.atleast_1d(average_precision_score(labels, scores, average=None))
    figures = {
        "binary_accuracy": at_half.mean(),
        "binary_accuracy_at_thresholds": at_thresholds.mean(),
        "macro_average_precision": precision.mean(),
        "expected_calibration_error": calibration_error(labels, scores),
    }
    if activation == "softmax":
        figures["accuracy"] = (labels.argmax(axis=1) == scores.argmax(axis=1)).mean()
    for target, accuracy, average in zip(targets, at_half.mean(axis=0), precision, strict=True):
        figures[f"binary_accuracy_{target}"] = accuracy
        figures[f"average_precision_{target}"] = average
    return {name: round(float(value), 4) for name, value in figures.items()}


def calibration_error(labels: NDArray[Any], scores: Scores) -> float:
    """The expected calibration error, 0 to 1, over all labels.

    The scores are put into ten bins of equal width. The error is the mean difference between the
    mean score of a bin and the share of positive labels in it, weighted by the size of the bin.
    """
    which = np.minimum((scores * BIN_COUNT).astype(int), BIN_COUNT - 1).ravel()
    distance = np.bincount(which, weights=(scores - labels).ravel(), minlength=BIN_COUNT)
    return float(np.abs(distance).sum() / scores.size)


def fit_calibration(
    labels: Labels, scores: Scores, fitted_on: str, activation: Activation
) -> Calibration:
    """Platt scaling for each label, or the temperature of a softmax.

    `scores` are of networks that never saw these pictures.

    Sources: Platt 1999, Probabilistic outputs for support vector machines; Guo et al. 2017, On
    Calibration of Modern Neural Networks.
    """
    if activation == "softmax":
        return _fit_temperature(labels, scores, fitted_on)
    slopes, offsets = [], []
    for truth, column in zip(labels.T, logits(scores).T, strict=True):
        fitted = LogisticRegression(C=1e3).fit(column[:, None], truth)
        # The order of the scores must not be reversed, even for a network worse than chance.
        slopes.append(round(max(float(fitted.coef_[0, 0]), 0.01), 4))
        offsets.append(round(float(fitted.intercept_[0]), 4))
    return Calibration(slopes=tuple(slopes), offsets=tuple(offsets), fitted_on=fitted_on)


def _fit_temperature(labels: Labels, scores: Scores, fitted_on: str) -> Calibration:
    count = labels.shape[1]

    def of_slope(log_slope: float) -> Calibration:
        slopes = (round(float(np.exp(log_slope)), 4),) * count
        return Calibration(slopes=slopes, offsets=(0.0,) * count, fitted_on=fitted_on)

    def loss(log_slope: float) -> float:
        chances = calibrated(scores, of_slope(log_slope), "softmax")
        return -float(np.log(np.maximum(chances, 1e-12))[labels > 0.5].mean())

    return of_slope(float(minimize_scalar(loss, bounds=(-3, 3), method="bounded").x))


def choose_thresholds(labels: Labels, scores: Scores, activation: Activation) -> tuple[float, ...]:
    """The threshold with the most correct answers for each label, from out-of-fold `scores`.

    For a softmax it is 0.5, which at most one label reaches.

    Of the thresholds nearly as good as the best (within one answer in 500), the one nearest to 0.5
    is chosen, which depends less on chance.
    """
    if activation == "softmax":
        return (0.5,) * len(labels.T)
    thresholds = []
    for truth, column in zip(labels.T > 0.5, scores.T, strict=True):
        accuracy = ((column[None] > _CANDIDATES[:, None]) == truth[None]).mean(axis=1)
        good = _CANDIDATES[accuracy >= accuracy.max() - 0.002]
        thresholds.append(round(float(good[np.abs(good - 0.5).argmin()]), 2))
    return tuple(thresholds)
