"""Calibration error, calibration and thresholds, on scores whose truth is known."""

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from model.artifact.calibration import calibrated, logits
from model.training.bootstrap import Ranking, draw_figures, interval
from model.training.evaluation import (
    calibration_error,
    choose_thresholds,
    decide,
    evaluate,
    fit_calibration,
)

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


def test_a_calibration_is_kept_only_if_it_is_better_out_of_fold() -> None:
    labels, chances = unbiased_scores(400)
    folds = np.arange(400) % 4
    honest = decide(labels, chances, folds, "these", "sigmoid")
    assert honest.calibration is None
    assert np.array_equal(honest.scores, chances)
    overconfident = 1 / (1 + np.exp(-2 * logits(chances)))
    decision = decide(labels, overconfident, folds, "these", "sigmoid")
    assert decision.calibration is not None
    assert decision.calibration.slopes == pytest.approx((0.5, 0.5), rel=0.3)
    first = folds == 0
    others = fit_calibration(labels[~first], overconfident[~first], "these", "sigmoid")
    expected = calibrated(overconfident[first], others, "sigmoid")
    assert np.array_equal(decision.scores[first], expected), "fitted without the fold"


def test_thresholds_are_kept_only_if_they_are_better_out_of_fold() -> None:
    folds = np.arange(400) % 4
    kept = []
    for seed in range(8):
        random = np.random.default_rng(seed)
        scores = random.random((400, 1))
        # Steps, to which no logistic curve fits: most pictures from 0.6 on have the label.
        chances = np.where(scores > 0.6, 0.9, np.where(scores > 0.2, 0.45, 0.0))
        chances = scores if seed % 2 else chances
        labels = (random.random((400, 1)) < chances).astype(np.float32)
        decision = decide(labels, scores, folds, "these", "sigmoid")
        for fold in range(4):
            [threshold] = set(decision.used_thresholds[folds == fold, 0])
            others = folds != fold
            raw = scores[others]
            if decision.calibration:
                own = fit_calibration(labels[others], raw, "the other folds", "sigmoid")
                raw = calibrated(raw, own, "sigmoid")
            best = choose_thresholds(labels[others], raw, "sigmoid")
            assert threshold in (0.5, best[0])
        right = ((decision.scores > decision.used_thresholds) == (labels > 0.5)).mean()
        at_half = ((decision.scores > 0.5) == (labels > 0.5)).mean()
        kept.append(decision.thresholds != (0.5,))
        assert right > at_half if kept[-1] else right == at_half
    assert True in kept
    assert False in kept


def test_bootstrap_draws_vary_around_the_figures_of_all_pictures() -> None:
    labels, chances = unbiased_scores(300)
    chances = chances.round(2)  # with ties
    figures = evaluate(labels, chances, (0.4, 0.5), ("a", "b"), "sigmoid")
    draws = draw_figures(labels, chances, (0.4, 0.5))
    for name, values in draws.items():
        ends = interval(values)
        assert ends is not None
        assert ends[0] < figures[name] < ends[1] or name == "expected_calibration_error", name
    accuracy = draws["binary_accuracy"]
    deviation = ((chances > 0.5) == (labels > 0.5)).mean(axis=1).std() / 300**0.5
    assert accuracy.std() == pytest.approx(deviation, rel=0.15)


def test_the_average_precision_of_a_draw_is_that_of_its_pictures() -> None:
    labels, chances = unbiased_scores(80)
    chances = chances.round(1)
    weights = np.random.default_rng(1).integers(0, 3, 80)
    repeated = np.repeat(np.arange(80), weights)
    expected = average_precision_score(labels[repeated], chances[repeated])
    ranking = Ranking(labels > 0.5, chances)
    assert ranking.macro_average_precision(weights.astype(float)) == pytest.approx(expected)


def test_groups_are_drawn_as_a_whole() -> None:
    labels = np.repeat([[1.0], [0.0], [1.0], [0.0]], 50, axis=0)
    scores = np.repeat([[0.9], [0.9], [0.1], [0.1]], 50, axis=0)
    narrow = interval(draw_figures(labels, scores, (0.5,))["binary_accuracy"])
    groups = np.arange(200) // 50
    wide = interval(draw_figures(labels, scores, (0.5,), groups=groups)["binary_accuracy"])
    assert narrow == pytest.approx([0.43, 0.57], abs=0.02)
    assert wide == [0, 1]


def test_the_interval_of_an_undefined_figure_is_none() -> None:
    labels = np.zeros((10, 1))
    draws = draw_figures(labels, np.full((10, 1), 0.3), (0.5,))
    assert interval(draws["macro_average_precision"]) is None
