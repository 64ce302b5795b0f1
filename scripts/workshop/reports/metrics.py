"""Calculates metrics of scores, for a report and as JSON."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from model.training.bootstrap import Draws, draw_figures, interval
from model.training.evaluation import BIN_COUNT, calibration_error

Truth = NDArray[np.bool_]
Scores = NDArray[np.float64]
Metrics = dict[str, Any]

_CURVE_THRESHOLDS = np.linspace(0, 1, 101)
_DRAWS = 200


def evaluate_scores(
    truth: Truth, scores: Scores, thresholds: Sequence[float], labels: Sequence[str]
) -> Metrics:
    """The metrics of `scores` (n, n_labels), overall and by label. An undefined metric is None,
    such as the average precision of a label that no picture has.
    """
    predicted = scores >= np.asarray(thresholds)
    by_label = {
        label: _label_metrics(truth[:, at], scores[:, at], threshold)
        for at, (label, threshold) in enumerate(zip(labels, thresholds, strict=True))
    }
    overall = {
        "macro_average_precision": _mean(by_label, "average_precision"),
        "macro_f1": _mean(by_label, "f1"),
        "accuracy_at_half": share((scores > 0.5) == truth),
        "exact_match": share((predicted == truth).all(axis=1)),
        "expected_calibration_error_by_chance": round(_chance_error(scores), 4),
        **_common_metrics(truth, scores, predicted),
        "intervals_95": {
            name: interval(draws) for name, draws in draws_of(truth, scores, thresholds).items()
        },
    }
    confusion = _confusion(truth, predicted, labels)
    return {"pictures": len(truth), "overall": overall, "labels": by_label, "confusion": confusion}


def draws_of(truth: Truth, scores: Scores, thresholds: Sequence[float]) -> dict[str, Draws]:
    """Bootstrap draws of the overall figures that have an interval, by their names here."""
    drawn = draw_figures(truth, scores, thresholds)
    names = {
        "macro_average_precision": "macro_average_precision",
        "accuracy": "binary_accuracy_at_thresholds",
        "expected_calibration_error": "expected_calibration_error",
    }
    return {name: drawn[other] for name, other in names.items()}


def _label_metrics(truth: Truth, scores: Scores, threshold: float) -> Metrics:
    predicted = scores >= threshold
    precision, recall, f1 = _precision_recall_f1(truth, predicted)
    return {
        "threshold": threshold,
        "positives": int(truth.sum()),
        "precision": precision,
        "recall": recall,
        "f1": f1,
        "average_precision": (
            round(float(average_precision_score(truth, scores)), 4) if truth.any() else None
        ),
        "curve": [
            [round(float(at), 2), *_precision_recall_f1(truth, scores >= at)]
            for at in _CURVE_THRESHOLDS
        ],
        **_common_metrics(truth, scores, predicted),
    }


def _common_metrics(truth: Truth, scores: Scores, predicted: Truth) -> Metrics:
    return {
        "accuracy": share(predicted == truth),
        "expected_calibration_error": round(calibration_error(truth, scores), 4),
        "reliability": reliability(truth, scores),
    }


def _precision_recall_f1(
    truth: Truth, predicted: Truth
) -> tuple[float | None, float | None, float | None]:
    hits, given, real = int((truth & predicted).sum()), int(predicted.sum()), int(truth.sum())
    return (
        round(hits / given, 4) if given else None,
        round(hits / real, 4) if real else None,
        round(2 * hits / (given + real), 4) if real else None,
    )


def reliability(truth: Truth, scores: Scores) -> list[dict[str, float]]:
    """For each non-empty bin of scores: its start, count, mean score and share of positives."""
    bins = np.minimum((scores * BIN_COUNT).astype(int), BIN_COUNT - 1)
    return [
        {
            "from": number / BIN_COUNT,
            "count": int(inside.sum()),
            "mean_score": round(float(scores[inside].mean()), 4),
            "share": share(truth[inside]),
        }
        for number in range(BIN_COUNT)
        if (inside := bins == number).any()
    ]


def _chance_error(scores: Scores) -> float:
    """The mean calibration error of perfectly calibrated scores with these values."""
    random = np.random.default_rng(0)
    draws = [calibration_error(random.random(scores.shape) < scores, scores) for _ in range(_DRAWS)]
    return float(np.mean(draws))


def _confusion(truth: Truth, predicted: Truth, labels: Sequence[str]) -> dict[str, dict[str, int]]:
    """How often pictures with a label, or with none (""), wrongly get each other label; the count
    of a label with itself is how often it was missed.
    """
    wrong, missed = predicted & ~truth, truth & ~predicted
    counts = {label: wrong[truth[:, at]].sum(axis=0) for at, label in enumerate(labels)}
    for at, label in enumerate(labels):
        counts[label][at] = missed[:, at].sum()
    counts[""] = wrong[~truth.any(axis=1)].sum(axis=0)
    return {label: dict(zip(labels, row.tolist(), strict=True)) for label, row in counts.items()}


def share(cells: Truth) -> float:
    """The share of the cells that are true, with four decimals."""
    return round(float(cells.mean()), 4)


def _mean(by_label: dict[str, Metrics], name: str) -> float | None:
    values = [metrics[name] for metrics in by_label.values() if metrics[name] is not None]
    return round(float(np.mean(values)), 4) if values else None
