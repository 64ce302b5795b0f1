"""Heads that are taught on features, and what is said about them."""

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from model.artifact.card import Activation
from model.training.data.dataset import Annotations
from model.training.teach import (
    doubtful_labels,
    join_similar,
    label_next,
    problems,
    similar_pairs,
    teach,
)

WIDTH = 40


def features_of(labels: NDArray[Any], noise: float, seed: int) -> NDArray[np.float32]:
    """Features in which each label has a direction of its own."""
    random = np.random.default_rng(seed)
    directions = np.random.default_rng(0).normal(size=(labels.shape[1], WIDTH))
    return (3 + labels @ directions + noise * random.normal(size=(len(labels), WIDTH))).astype(
        np.float32
    )


def annotated(labels: NDArray[Any], groups: NDArray[np.intp] | None = None) -> Annotations:
    count = len(labels)
    return Annotations(
        tuple(f"{index}.jpg" for index in range(count)),
        labels.astype(np.float32),
        np.zeros(count, np.bool_),
        tuple(range(2, count + 2)),
        np.arange(count) if groups is None else groups,
        False,
    )


def random_labels(count: int, columns: int, seed: int = 5) -> NDArray[np.float32]:
    return (np.random.default_rng(seed).random((count, columns)) < 0.4).astype(np.float32)


@pytest.mark.parametrize("columns", [1, 3])
def test_a_head_scores_pictures_that_it_has_not_seen(columns: int) -> None:
    labels, others = random_labels(200, columns), random_labels(300, columns, 6)
    names = tuple("abc"[:columns])
    taught = teach(features_of(labels, 0.7, 1), annotated(labels), names, "sigmoid")
    scores = taught.scores_of(features_of(others, 0.7, 2))
    assert ((scores > 0.5) == others).mean() > 0.95
    figures, intervals = taught.metrics["out_of_fold"], taught.metrics["intervals_95"]
    assert figures["macro_average_precision"] > 0.95
    low, high = intervals["out_of_fold"]["macro_average_precision"]
    assert low <= figures["macro_average_precision"] <= high
    assert figures["average_precision_a"] > 0.95
    assert taught.scores.shape == labels.shape


@pytest.mark.parametrize("columns", [2, 3])
def test_a_softmax_gives_one_label_a_picture(columns: int) -> None:
    random = np.random.default_rng(3)
    labels, others = (
        np.eye(columns, dtype=np.float32)[random.integers(columns, size=count)]
        for count in (150, 200)
    )
    activation: Activation = "softmax"
    names = tuple("abc"[:columns])
    taught = teach(features_of(labels, 0.7, 1), annotated(labels), names, activation)
    scores = taught.scores_of(features_of(others, 0.7, 2))
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=1e-6)
    assert (scores.argmax(axis=1) == others.argmax(axis=1)).mean() > 0.95


def test_labels_without_meaning_get_honest_figures() -> None:
    labels = random_labels(150, 1)
    noise = np.random.default_rng(9).normal(size=(150, WIDTH)).astype(np.float32)
    taught = teach(noise, annotated(labels), ("a",), "sigmoid")
    low, high = taught.metrics["intervals_95"]["out_of_fold"]["macro_average_precision"]
    assert low < labels.mean() + 0.1
    assert high < 0.7


def test_copies_of_a_picture_are_measured_by_heads_that_saw_none_of_them() -> None:
    labels = np.repeat(random_labels(30, 1), 5, axis=0)
    noise = np.repeat(np.random.default_rng(9).normal(size=(30, WIDTH)), 5, axis=0)
    copies = (noise + 0.01 * np.random.default_rng(1).normal(size=noise.shape)).astype(np.float32)
    assert len(similar_pairs(copies)) == 30 * 10
    joined = join_similar(annotated(labels), copies)
    assert len(set(joined.groups.tolist())) == 30
    alone = teach(copies, annotated(labels), ("a",), "sigmoid")
    apart = teach(copies, joined, ("a",), "sigmoid")
    name = "macro_average_precision"
    assert alone.metrics["out_of_fold"][name] > 0.95
    assert apart.metrics["out_of_fold"][name] < 0.8


def test_missing_answers_are_named() -> None:
    labels = np.zeros((20, 3), np.float32)
    labels[:10, 1] = labels[0, 2] = 1
    found = problems(annotated(labels), ("ships", "trees", "cats"))
    assert [one.partition(",")[0] for one in found] == [
        "ships: 0 pictures with it",
        "cats: 1 pictures with it",
    ]
    grouped = annotated(labels, np.repeat([0, 1], 10))
    assert len(problems(grouped, ("ships", "trees", "cats"))) == 4


def test_a_wrong_label_is_suspected_first() -> None:
    labels = random_labels(200, 2)
    features = features_of(labels, 0.5, 1)
    wrong = labels.copy()
    wrong[17, 1] = 1 - wrong[17, 1]
    taught = teach(features, annotated(wrong), ("a", "b"), "sigmoid")
    found = doubtful_labels(wrong, taught.scores)
    assert found[0] == (17, 1)


def test_the_next_pictures_are_uncertain_and_differ() -> None:
    scores = np.full((400, 1), 0.99)
    scores[100:150] = 0.5
    features = np.zeros((400, WIDTH), np.float32)
    for index in range(400):
        features[index, index // 5 % WIDTH] = 1
    chosen = label_next(scores, (0.5,), features, 5)
    assert len(set(chosen)) == 5
    assert set(chosen) <= set(range(100, 150))
    assert len({index // 5 for index in chosen}) == 5
    assert label_next(scores[:0], (0.5,), features[:0], 5) == []
    assert len(label_next(scores[:3], (0.5,), features[:3], 5)) == 3


def test_tensorflow_is_not_imported() -> None:
    script = "import sys, scripts.workshop.teach; sys.exit('tensorflow' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
