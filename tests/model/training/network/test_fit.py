"""Fits of a network that is small enough to be fitted many times."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from model.training.checkpoints import Checkpoints, in_order
from model.training.config import TrainingConfig
from model.training.data.augmentation import mix
from model.training.network.build import Network
from model.training.network.features import TrainingSet
from model.training.network.fit import Fit
from model.training.network.loss import accuracy_of, answer_weights, cross_entropy, make_loss
from model.training.run import fit_folds
from model.training.training_log import Stage, TrainingLog

pytestmark = pytest.mark.filterwarnings(
    "ignore:__array__ implementation doesn't accept a copy keyword:DeprecationWarning",
)


class Crash(Exception):
    """Simulates a crash."""


class CrashingLog(TrainingLog):
    """A log that crashes once it has more than `crash_after` epochs of fine-tuning."""

    def __init__(self, folder: Path, crash_after: int) -> None:
        super().__init__(folder)
        self._remaining = crash_after

    def add(self, epochs: Any) -> None:
        super().add(epochs)
        self._remaining -= sum(epoch.stage is Stage.FINE_TUNING for epoch in epochs)
        if self._remaining < 0:
            raise Crash


def make_network() -> Network:
    """A convolution, pooling and two sigmoids, the same each time."""
    keras.utils.set_random_seed(3)
    features = keras.Input((4, 4, 3))
    pooled = keras.layers.GlobalAveragePooling2D()(keras.layers.Conv2D(5, 3)(features))
    tuned_backbone = keras.Model(features, pooled)
    vector = keras.Input((5,))
    dropped = keras.layers.Dropout(0.3, name="dropout")(vector)
    head = keras.Model(vector, keras.layers.Dense(2, activation="sigmoid")(dropped))
    tuned = keras.Model(features, head(tuned_backbone(features)))
    return Network(tuned, None, tuned_backbone, tuned_backbone, head, tuned, "sigmoid")


def make_set(network: Network) -> TrainingSet:
    random = np.random.default_rng(2)
    labels = (random.random((24, 2)) < [0.5, 0.25]).astype(np.float32)
    colours = labels @ np.array([[1.0, 0, 0], [0, 1.0, 0]])
    plain = (random.normal(size=(24, 4, 4, 3)) + colours[:, None, None]).astype(np.float16)
    copies = np.stack([plain, plain[:, ::-1]])
    pooled = np.stack(
        [np.asarray(network.tuned_backbone(copy.astype(np.float32))) for copy in copies]
    )
    return TrainingSet(plain, copies, pooled, labels)


def make_fit(folder: Path, training_log: TrainingLog | None = None, **settings: Any) -> Fit:
    network = make_network()
    defaults = {"batch_size": 5, "epochs": 4, "head_epochs": 3, "initial_learning_rate": 0.05}
    config = TrainingConfig.model_validate(
        {"model_path": folder / "tiny/1", "dropout": 0.3, **defaults, **settings}
    )
    checkpoints = Checkpoints(folder / "checkpoints", "tiny")
    held_out = np.arange(24) % 4 == 0
    return Fit(
        network,
        make_set(network),
        1,
        held_out,
        config,
        checkpoints,
        training_log or TrainingLog(folder),
    )


def weights(fit: Fit) -> list[NDArray[np.float32]]:
    return [np.asarray(weight) for weight in fit.network.tuned.weights]


def same(one: Fit, other: Fit) -> bool:
    return all(map(np.array_equal, weights(one), weights(other)))


def test_a_seed_fixes_every_weight(tmp_path: Path) -> None:
    fits = [make_fit(tmp_path / str(number), seed=seed) for number, seed in enumerate((1, 1, 2))]
    for fit in fits:
        fit.run()
    assert same(fits[0], fits[1])
    assert not same(fits[0], fits[2])


@pytest.mark.parametrize("crash_after", [1, 2, 3])
def test_a_resumed_fit_ends_with_the_weights_of_an_uninterrupted_one(
    tmp_path: Path, crash_after: int
) -> None:
    whole = make_fit(tmp_path / "whole", mixup=0.4)
    expected_scores, expected = whole.run()
    with pytest.raises(Crash):
        make_fit(
            tmp_path / "crashed", CrashingLog(tmp_path / "crashed", crash_after), mixup=0.4
        ).run()
    resumed = make_fit(tmp_path / "crashed", mixup=0.4)
    scores, epochs = resumed.run()
    assert same(whole, resumed)
    assert np.array_equal(scores, expected_scores)
    assert [(e.stage, e.epoch, e.loss, e.held_out_loss) for e in epochs[3:]] == [
        (e.stage, e.epoch, e.loss, e.held_out_loss) for e in expected[3:]
    ]
    rows = (tmp_path / "crashed/training.csv").read_text().splitlines()
    assert len(rows) == 1 + 3 + 4


def test_each_picture_is_scored_by_the_mean_of_the_fits_that_never_saw_it(tmp_path: Path) -> None:
    fit = make_fit(tmp_path, folds=2, epochs=1, head_epochs=1)
    folds = np.arange(24) % 2
    tuned, start = fit.network.tuned, fit.network.tuned.get_weights()
    parts = (fit.network, fit.data, folds, fit.config, fit.checkpoints, fit.training_log)
    scores, without = fit_folds(*parts)
    fitted = [in_order(fit.checkpoints.load(f"fit-{number}") or {}) for number in range(4)]
    same_mean(tuned.get_weights(), fitted)
    for fold in range(2):
        same_mean(without[fold], [fitted[fold], fitted[fold + 2]])
        tuned.set_weights(without[fold])
        expected = np.asarray(tuned(fit.data.plain[folds == fold].astype(np.float32)))
        assert scores[folds == fold] == pytest.approx(expected, abs=1e-5)
    assert not np.array_equal(fitted[1][0], fitted[3][0]), "the random numbers differ"

    tuned.set_weights(start)
    checkpoints = Checkpoints(tmp_path / "again", "tiny")
    replace(fit, fold=3, held_out=folds == 1, checkpoints=checkpoints).run()
    same_mean(tuned.get_weights(), [fitted[3]])


def same_mean(found: list[Any], fits: list[list[Any]]) -> None:
    for weight, *ones in zip(found, *fits, strict=True):
        assert weight == pytest.approx(np.mean(ones, axis=0), abs=1e-6)


def test_early_stopping_restores_the_best_epoch(tmp_path: Path) -> None:
    fit = make_fit(tmp_path, early_stopping_patience=2, initial_learning_rate=1.5, epochs=12)
    scores, epochs = fit.run()
    losses = [epoch.held_out_loss for epoch in epochs if epoch.stage is Stage.FINE_TUNING]
    best = int(np.argmin(losses))
    assert len(losses) == best + 3 < 12
    truth = fit.data.labels[fit.held_out]
    assert cross_entropy(truth, scores, "sigmoid") == pytest.approx(losses[best], rel=1e-5)


def test_without_fine_tuning_only_the_head_learns(tmp_path: Path) -> None:
    fit = make_fit(tmp_path, epochs=0)
    before = weights(fit)
    _, epochs = fit.run()
    assert {epoch.stage for epoch in epochs} == {Stage.HEAD}
    backbone_weight_count = len(fit.network.tuned_backbone.weights)
    moved = [not np.array_equal(one, two) for one, two in zip(before, weights(fit), strict=True)]
    assert moved == [False] * backbone_weight_count + [True] * (len(moved) - backbone_weight_count)


def test_balanced_weights_are_equal_with_and_without_a_label() -> None:
    labels = np.array([[1, 0], [0, 0], [0, 0], [0, 1]] * 5, np.float32)
    labels[0, 1] = 1
    balanced = answer_weights(labels, "balanced", "sigmoid")
    for column, (no, yes) in zip(labels.T, balanced.T, strict=True):
        assert no * (1 - column).sum() == pytest.approx(yes * column.sum())
        assert no * (1 - column).sum() + yes * column.sum() == pytest.approx(len(labels))
    assert answer_weights(labels, "none", "sigmoid").tolist() == [[1, 1], [1, 1]]


def test_balanced_weights_of_an_answer_that_is_missing_are_finite() -> None:
    labels = np.array([[0, 1], [0, 1]], np.float32)
    assert np.isfinite(answer_weights(labels, "balanced", "sigmoid")).all()


def test_the_loss_is_cross_entropy_with_weights_and_smoothing() -> None:
    truth = np.array([[1.0, 0.0]], np.float32)
    scores = np.array([[0.8, 0.3]], np.float32)
    plain = make_loss(np.ones((2, 2), np.float32), 0.0, "sigmoid")
    assert float(np.mean(plain(truth, scores))) == pytest.approx(
        cross_entropy(truth, scores, "sigmoid")
    )
    assert cross_entropy(truth, scores, "sigmoid") == pytest.approx(
        -(np.log(0.8) + np.log(0.7)) / 2
    )
    weighted = make_loss(np.array([[1, 5], [3, 1]], np.float32), 0.2, "sigmoid")
    yes = -(0.9 * np.log(0.8) + 0.1 * np.log(0.2))
    no = -(0.1 * np.log(0.3) + 0.9 * np.log(0.7))
    assert float(np.mean(weighted(truth, scores))) == pytest.approx((3 * yes + 5 * no) / 2)


def test_blended_labels_are_weighted_by_their_parts_and_rounded_for_accuracy() -> None:
    truth = np.array([[0.8, 0.3]], np.float32)
    scores = np.array([[0.7, 0.6]], np.float32)
    weighted = make_loss(np.array([[1, 5], [3, 1]], np.float32), 0.0, "sigmoid")
    first = -(0.8 * np.log(0.7) + 0.2 * np.log(0.3)) * (1 + 0.8 * 2)
    second = -(0.3 * np.log(0.6) + 0.7 * np.log(0.4)) * (5 - 0.3 * 4)
    assert float(np.mean(weighted(truth, scores))) == pytest.approx((first + second) / 2)
    assert float(np.mean(accuracy_of("sigmoid")(truth, scores))) == 0.5


def test_balanced_weights_of_a_softmax_are_equal_for_all_labels() -> None:
    labels = np.eye(3, dtype=np.float32)[[0] * 6 + [1] * 3 + [2]]
    yes = answer_weights(labels, "balanced", "softmax")[1]
    assert yes * labels.sum(axis=0) == pytest.approx(np.full(3, 10 / 3))


def test_the_loss_of_a_softmax_is_that_of_the_right_label() -> None:
    truth = np.array([[1.0, 0.0], [0.5, 0.5]], np.float32)
    scores = np.array([[0.8, 0.2], [0.4, 0.6]], np.float32)
    loss = make_loss(np.array([[1, 1], [3, 1]], np.float32), 0.0, "softmax")
    blended = -(0.5 * np.log(0.4) + 0.5 * np.log(0.6))
    assert np.asarray(loss(truth, scores)) == pytest.approx([-3 * np.log(0.8), 2 * blended])
    assert np.asarray(accuracy_of("softmax")(truth, scores)).tolist() == [1, 0]
    expected = (-np.log(0.8) + blended) / 2
    assert cross_entropy(truth, scores, "softmax") == pytest.approx(expected)


def test_features_and_labels_are_blended_with_others_by_at_most_a_half() -> None:
    labels = np.eye(40, dtype=np.float32)
    features = np.tile(labels[:, None], (1, 3, 1))
    mixed, truth = mix(features, labels, 0.4, np.random.default_rng(1))
    assert np.array_equal(mixed, np.tile(truth[:, None], (1, 3, 1)))
    assert truth.sum(axis=1) == pytest.approx(np.ones(40))
    assert truth.argmax(axis=1).tolist() == list(range(40))
    shares = 1 - truth.diagonal()
    assert shares.min() < 0.01, "some hardly"
    assert 0.4 < shares.max() <= 0.5, "some by nearly a half"
    assert (np.count_nonzero(truth, axis=1) <= 2).all()


def test_without_mixup_nothing_is_blended() -> None:
    features, labels = np.ones((3, 2), np.float32), np.eye(3, dtype=np.float32)
    mixed, truth = mix(features, labels, 0.0, np.random.default_rng(1))
    assert mixed is features
    assert truth is labels
