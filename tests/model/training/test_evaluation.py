"""Calibration error, calibration and thresholds, on scores whose truth is known."""

import numpy as np
import pytest
from numpy.typing import NDArray

from model.artifact.calibration import calibrated, logits
from model.training.evaluation import calibration_error, choose_thresholds, fit_calibration

Floats = NDArray[np.float64]


def unbiased_scores(count: int) -> tuple[NDArray[np.float32], Floats]:
    """Labels of two kinds, and the probability with which each was drawn."""
    random = np.random.default_rng(7)
    chances = random.beta(0.4, 0.8, (count, 2))
    return (random.random((count, 2)) < chances).astype(np.float32), chances


def test_the_calibration_error_is_the_mean_distance_of_the_bins() -> None:
    scores = np.array([[0.15], [0.15], [0.15], [0.15], [0.95]])
    labels = np.array([[1], [0], [0], [0], [0]], np.float32)
    assert calibration_error(labels, scores) == pytest.approx((4 * 0.10 + 1 * 0.95) / 5)


def test_scores_of_0_and_1_have_a_bin() -> None:
    assert calibration_error(np.array([[0.0], [1.0]]), np.array([[0.0], [1.0]])) == 0


def test_calibration_corrects_overconfident_scores() -> None:
    labels, chances = unbiased_scores(6000)
    overconfident = 1 / (
        1 + np.exp(-(logits(chances) - np.array([0.4, -0.2])) / np.array([0.5, 0.8]))
    )
    calibration = fit_calibration(labels, overconfident, "these", "sigmoid")
    assert calibration.slopes == pytest.approx((0.5, 0.8), rel=0.1)
    assert calibration.offsets == pytest.approx((0.4, -0.2), abs=0.1)
    before = calibration_error(labels, overconfident)
    after = calibration_error(labels, calibrated(overconfident, calibration, "sigmoid"))
    assert after < 0.015 < 0.04 < before


def test_calibration_never_reverses_the_order_of_scores() -> None:
    labels, chances = unbiased_scores(500)
    assert min(fit_calibration(labels, 1 - chances, "these", "sigmoid").slopes) > 0


def test_the_temperature_of_an_overconfident_softmax_is_found() -> None:
    random = np.random.default_rng(3)
    chances = random.dirichlet([0.6] * 4, 4000)
    labels = np.eye(4)[[random.choice(4, p=row) for row in chances]].astype(np.float32)
    overconfident = chances**2 / (chances**2).sum(axis=1, keepdims=True)
    calibration = fit_calibration(labels, overconfident, "these", "softmax")
    assert calibration.slopes == pytest.approx((0.5,) * 4, rel=0.05)
    assert len(set(calibration.slopes)) == 1
    assert calibration.offsets == (0,) * 4
    assert calibrated(overconfident, calibration, "softmax") == pytest.approx(chances, abs=0.03)
    assert choose_thresholds(labels, chances, "softmax") == (0.5,) * 4


def test_a_threshold_is_the_one_with_most_correct_answers() -> None:
    labels = np.repeat([[0.0], [1.0]], 50, axis=0).astype(np.float32)
    scores = np.concatenate([np.linspace(0, 0.28, 50), np.linspace(0.31, 1, 50)])[:, None]
    (threshold,) = choose_thresholds(labels, scores, "sigmoid")
    assert 0.28 <= threshold <= 0.31
    assert choose_thresholds(labels, labels, "sigmoid") == (0.5,)
