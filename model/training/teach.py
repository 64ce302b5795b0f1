"""Teaches heads on the features of a backbone: logistic regression, without TensorFlow."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from threadpoolctl import threadpool_limits

from model.artifact.calibration import calibrated, logits
from model.artifact.card import Activation, Calibration
from model.artifact.head import Head
from model.neighbours import unit_rows
from model.training.bootstrap import draw_figures, interval
from model.training.data.dataset import Annotations, Labels, stratified_folds
from model.training.data.near_duplicates import pairs_where
from model.training.evaluation import Scores, decide, evaluate, log_loss

Features = NDArray[np.float32]

FOLDS = 5
# Inverse strengths of the penalty on the weights of standardized features.
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
MOST_ITERATIONS = 500
# Pictures with such similar features are one group, so that no fold is measured on its own copies.
# Of 47 photos of `scenes` that were compressed, halved, brightened, cropped or mirrored, 77 % to
# 100 % are found, and of its 958,420 pairs of different photos 7.
SAME_SIMILARITY = 0.9
_FITTED_ON = "out-of-fold scores of the labelled pictures"


@dataclass(frozen=True)
class Taught:
    """A head, and what its pictures show of it.

    `scores` (n, n_labels) are those of each labelled picture, calibrated, by a head that was fitted
    without its fold. `metrics` are those of a card.
    """

    head: Head
    activation: Activation
    calibration: Calibration | None
    thresholds: tuple[float, ...]
    scores: Scores
    strength: float
    metrics: dict[str, Any]

    def scores_of(self, features: Features) -> Scores:
        """The calibrated scores (n, n_labels) of other pictures."""
        raw = self.head.scores(features, self.activation)
        return calibrated(raw, self.calibration, self.activation)


def teach(
    features: Features, annotations: Annotations, targets: tuple[str, ...], activation: Activation
) -> Taught:
    """Fit a head on the features (n, n_features) of labelled pictures.

    The strength of the penalty, the calibration and the thresholds are chosen out of fold; a group
    of pictures is in one fold. `annotations` must pass `check_folds` with `FOLDS`.
    """
    labels, groups = annotations.labels, annotations.groups
    folds = stratified_folds(annotations.names, labels, FOLDS, groups)
    unseen = {strength: np.empty(labels.shape) for strength in STRENGTHS}
    for fold in range(FOLDS):
        inside = folds == fold
        heads = fit_heads(features[~inside], labels[~inside], activation)
        for strength, head in heads.items():
            unseen[strength][inside] = head.scores(features[inside], activation)
    strength = min(STRENGTHS, key=lambda one: log_loss(labels, unseen[one], activation))
    decision = decide(labels, unseen[strength], folds, _FITTED_ON, activation)
    head = fit_heads(features, labels, activation, (strength,))[strength]
    drawn = draw_figures(labels, decision.scores, decision.used_thresholds, activation, groups)
    metrics = {
        "out_of_fold": evaluate(
            labels, decision.scores, decision.used_thresholds, targets, activation
        ),
        "intervals_95": {"out_of_fold": {name: interval(values) for name, values in drawn.items()}},
    }
    return Taught(
        head,
        activation,
        decision.calibration,
        decision.thresholds,
        decision.scores,
        strength,
        metrics,
    )


def problems(annotations: Annotations, targets: tuple[str, ...]) -> list[str]:
    """Why these labels cannot be taught: what to label, for each answer that is missing."""
    labels, groups = annotations.labels, annotations.groups
    folds = stratified_folds(annotations.names, labels, FOLDS, groups)
    found = []
    for target, column in zip(targets, labels.T, strict=True):
        for answer, word in ((1, "with"), (0, "without")):
            matching = column == answer
            if len(set(folds[matching])) < 2:
                found.append(
                    f"{target}: {matching.sum()} pictures {word} it, and at least 2 that are not "
                    "alike are needed, better 10: label some more"
                )
    return found


def fit_heads(
    features: Features,
    labels: Labels,
    activation: Activation,
    strengths: tuple[float, ...] = STRENGTHS,
) -> dict[float, Head]:
    """A head for each strength of the penalty, one regression a label or, for a softmax, one.

    Threads of BLAS are slower here, and much slower beside other work.
    """
    mean = features.mean(axis=0, dtype=np.float64)
    scale = features.std(axis=0, dtype=np.float64) + 1e-6
    standard = ((features - mean) / scale).astype(np.float32)
    columns = [labels.argmax(axis=1)] if activation == "softmax" else list(labels.T)
    heads = {}
    for strength in strengths:
        with threadpool_limits(1):
            fits = [
                LogisticRegression(C=strength, max_iter=MOST_ITERATIONS).fit(standard, column)
                for column in columns
            ]
        weights = np.vstack([one.coef_ for one in fits])
        bias = np.hstack([one.intercept_ for one in fits])
        if len(bias) < labels.shape[1]:  # a softmax of two labels, of which only one has weights
            weights, bias = np.vstack([-weights, weights]) / 2, np.hstack([-bias, bias]) / 2
        weights = weights / scale
        bias = bias - weights @ mean
        heads[strength] = Head(weights.T.astype(np.float32), bias.astype(np.float32))
    return heads


def join_similar(annotations: Annotations, features: Features) -> Annotations:
    """The annotations with pictures of similar features in one group."""
    groups = annotations.groups.copy()
    for one, other in similar_pairs(features):
        groups[groups == groups[one]] = groups[other]
    return replace(annotations, groups=groups)


def similar_pairs(features: Features) -> list[tuple[int, int]]:
    """Pairs of indexes of pictures whose features have a cosine of SAME_SIMILARITY or more."""
    unit = unit_rows(features)
    return pairs_where(lambda block: unit[block] @ unit.T >= SAME_SIMILARITY, len(unit))


def doubtful_labels(labels: Labels, scores: Scores) -> list[tuple[int, int]]:
    """Labels that are likely wrong, as (picture, label), the most doubtful first.

    A label is suspected if the out-of-fold score says the opposite at least as clearly as it says
    the truth of an average picture with that opposite answer.

    Source: Northcutt, Jiang and Chuang 2021, Confident Learning.
    """
    truth = labels > 0.5
    found = []
    for column in range(labels.shape[1]):
        is_true, score = truth[:, column], scores[:, column]
        least_true, most_false = score[is_true].mean(), score[~is_true].mean()
        wrong = np.where(is_true, score <= most_false, score >= least_true)
        doubt = np.where(is_true, 1 - score, score)
        found += [(float(doubt[row]), int(row), column) for row in np.flatnonzero(wrong)]
    return [(row, column) for _, row, column in sorted(found, reverse=True)]


def label_next(
    scores: Scores, thresholds: tuple[float, ...], features: Features, count: int
) -> list[int]:
    """The pictures whose labels would teach most: uncertain, and different from each other.

    Of the most uncertain ones, ten times `count`, each next one is the least similar to those
    chosen before.
    """
    margins = np.abs(logits(scores) - logits(np.asarray(thresholds))).min(axis=1)
    candidates = np.argsort(margins, kind="stable")[: 10 * count]
    unit = unit_rows(features[candidates])
    chosen = [0] if len(candidates) else []
    nearest = unit @ unit[0] if chosen else np.empty(0)
    while len(chosen) < min(count, len(candidates)):
        nearest[chosen] = np.inf
        chosen.append(int(nearest.argmin()))
        nearest = np.maximum(nearest, unit @ unit[chosen[-1]])
    return [int(candidates[one]) for one in chosen]
