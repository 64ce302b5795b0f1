"""How good scores are, as figures that a report and a program can read."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from model.training.evaluation import BIN_COUNT, calibration_error

Truth = NDArray[np.bool_]
Scores = NDArray[np.float64]
Figures = dict[str, Any]

_CURVE = np.linspace(0, 1, 101)
_DRAWS = 200


def judge(
    truth: Truth, scores: Scores, thresholds: Sequence[float], labels: Sequence[str]
) -> Figures:
    """The figures of `scores` (n, n_labels), over all and a label. None where there is no answer,
    such as the average precision of a label that no picture has.
    """
    answers = scores >= np.asarray(thresholds)
    by_label = {
        label: _judge_label(truth[:, at], scores[:, at], threshold)
        for at, (label, threshold) in enumerate(zip(labels, thresholds, strict=True))
    }
    return {
        "pictures": len(truth),
        "overall": {
            "macro_average_precision": _mean(by_label, "average_precision"),
            "macro_f1": _mean(by_label, "f1"),
            "accuracy": round(float((answers == truth).mean()), 4),
            "accuracy_at_half": round(float(((scores > 0.5) == truth).mean()), 4),
            "all_labels_right": round(float((answers == truth).all(axis=1).mean()), 4),
            "expected_calibration_error": round(calibration_error(truth, scores), 4),
            "expected_calibration_error_by_chance": round(_chance_error(scores), 4),
            "reliability": reliability(truth, scores),
        },
        "labels": by_label,
        "pairs": _pairs(truth, answers, labels),
    }


def _judge_label(truth: Truth, scores: Scores, threshold: float) -> Figures:
    answers = scores >= threshold
    precision, recall, f1 = _precision_recall_f1(truth, answers)
    found = average_precision_score(truth, scores) if truth.any() else None
    return {
        "threshold": threshold,
        "positives": int(truth.sum()),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "average_precision": None if found is None else round(float(found), 4),
        "accuracy": round(float((answers == truth).mean()), 4),
        "expected_calibration_error": round(calibration_error(truth, scores), 4),
        "reliability": reliability(truth, scores),
        "curve": [
            [round(float(at), 2), *_precision_recall_f1(truth, scores >= at)] for at in _CURVE
        ],
    }


def _precision_recall_f1(
    truth: Truth, answers: Truth
) -> tuple[float | None, float | None, float | None]:
    hits, yes, real = int((truth & answers).sum()), int(answers.sum()), int(truth.sum())
    return (
        round(hits / yes, 4) if yes else None,
        round(hits / real, 4) if real else None,
        round(2 * hits / (yes + real), 4) if real else None,
    )


def reliability(truth: Truth, scores: Scores) -> list[dict[str, float]]:
    """For each tenth of the scores that has any: how many, their mean, and the share of yes."""
    which = np.minimum((scores * BIN_COUNT).astype(int), BIN_COUNT - 1)
    return [
        {
            "from": number / BIN_COUNT,
            "count": int(inside.sum()),
            "mean_score": round(float(scores[inside].mean()), 4),
            "share": round(float(truth[inside].mean()), 4),
        }
        for number in range(BIN_COUNT)
        if (inside := which == number).any()
    ]


def _chance_error(scores: Scores) -> float:
    """The calibration error that these scores would show on average if each were exactly right."""
    random = np.random.default_rng(0)
    draws = [calibration_error(random.random(scores.shape) < scores, scores) for _ in range(_DRAWS)]
    return float(np.mean(draws))


def _pairs(truth: Truth, answers: Truth, labels: Sequence[str]) -> dict[str, dict[str, int]]:
    """How often a picture with the first label, or none, was wrongly given the second; how often
    its own label was missed, where both are the same.
    """
    wrong = answers & ~truth
    missed = truth & ~answers
    pairs = {}
    for at, label in enumerate(labels):
        counts = wrong[truth[:, at]].sum(axis=0)
        counts[at] = missed[:, at].sum()
        pairs[label] = dict(zip(labels, counts.tolist(), strict=True))
    nothing = wrong[~truth.any(axis=1)].sum(axis=0)
    return pairs | {"": dict(zip(labels, nothing.tolist(), strict=True))}


def _mean(by_label: dict[str, Figures], name: str) -> float | None:
    values = [figures[name] for figures in by_label.values() if figures[name] is not None]
    return round(float(np.mean(values)), 4) if values else None
