"""Calibrated scores, compared with calculations by hand."""

import math

import numpy as np
import pytest

from model.artifact.calibration import calibrated, logits
from model.artifact.card import Calibration


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def test_each_label_has_its_own_slope_and_offset() -> None:
    calibration = Calibration(slopes=(2.0, 0.5), offsets=(0.0, -1.0))
    raw = np.array([[sigmoid(1.0), sigmoid(3.0)], [sigmoid(-0.5), sigmoid(0.0)]], np.float32)
    scores = calibrated(raw, calibration, "sigmoid")
    expected = [[sigmoid(2.0), sigmoid(0.5)], [sigmoid(-1.0), sigmoid(-1.0)]]
    assert scores == pytest.approx(np.array(expected), abs=1e-6)


def test_without_calibration_scores_are_unchanged() -> None:
    raw = np.array([[0.25, 1.0]], np.float32)
    assert calibrated(raw, None, "sigmoid") is raw


def test_the_most_confident_scores_stay_finite_and_in_order() -> None:
    calibration = Calibration(slopes=(0.6,), offsets=(-0.2,))
    scores = calibrated(np.array([[0.0], [0.5], [1.0]], np.float32), calibration, "sigmoid")
    assert np.isfinite(scores).all()
    assert 0 <= scores[0, 0] < scores[1, 0] < scores[2, 0] <= 1
    assert np.isfinite(logits(np.array([0.0, 1.0]))).all()


def test_a_calibrated_softmax_adds_up_to_1() -> None:
    raw = np.array([[0.7, 0.2, 0.1]])
    half = Calibration(slopes=(0.5,) * 3, offsets=(0.0,) * 3)
    scores = calibrated(raw, half, "softmax")
    roots = np.sqrt(raw)
    assert scores == pytest.approx(roots / roots.sum())
    assert scores.sum() == pytest.approx(1)
