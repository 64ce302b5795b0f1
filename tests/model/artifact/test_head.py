"""Heads: their files, and the scores that they make of features."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from model.artifact.card import ArtifactInvalid
from model.artifact.head import Head


def head() -> Head:
    random = np.random.default_rng(1)
    return Head(random.normal(size=(5, 3)).astype(np.float32), np.array([0, 1, -2], np.float32))


def test_a_head_is_read_as_it_was_written_and_equal_heads_are_equal_files(tmp_path: Path) -> None:
    for name in ("a.npz", "b.npz"):
        head().save(tmp_path / name)
    read = Head.load(tmp_path / "a.npz", 3)
    np.testing.assert_array_equal(read.kernel, head().kernel)
    np.testing.assert_array_equal(read.bias, head().bias)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_scores_are_those_of_a_dense_layer() -> None:
    features = np.random.default_rng(2).random((4, 5)).astype(np.float32)
    logits = features @ head().kernel + head().bias
    sigmoid = 1 / (1 + np.exp(-logits))
    softmax = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(head().scores(features, "sigmoid"), sigmoid, atol=1e-6)
    np.testing.assert_allclose(head().scores(features, "softmax"), softmax, atol=1e-6)


def test_scores_of_huge_features_are_0_and_1() -> None:
    features = np.array([[1e6], [-1e6]], np.float32)
    certain = Head(np.array([[1.0, -1.0]], np.float32), np.zeros(2, np.float32))
    for activation in ("sigmoid", "softmax"):
        scores = certain.scores(features, activation)
        np.testing.assert_array_equal(scores, [[1, 0], [0, 1]])


@pytest.mark.parametrize(
    "arrays",
    [
        {"kernel": np.zeros((5, 3), np.float32)},
        {"kernel": np.zeros((5, 2), np.float32), "bias": np.zeros(2, np.float32)},
        {"kernel": np.zeros(3, np.float32), "bias": np.zeros(3, np.float32)},
        {"kernel": np.zeros((5, 3)), "bias": np.zeros(3)},
        {"kernel": np.full((5, 3), np.nan, np.float32), "bias": np.zeros(3, np.float32)},
        {"kernel": np.array([None] * 3), "bias": np.zeros(3, np.float32)},
    ],
    ids=["no bias", "two labels", "one dimension", "float64", "nan", "objects"],
)
def test_a_file_that_is_no_head_is_refused_by_name(arrays: dict[str, Any], tmp_path: Path) -> None:
    np.savez(tmp_path / "head.npz", allow_pickle=True, **arrays)
    with pytest.raises(ArtifactInvalid, match=r"head\.npz .*: export the model again"):
        Head.load(tmp_path / "head.npz", 3)


def test_other_bytes_are_refused_by_name(tmp_path: Path) -> None:
    for content in (b"", b"not a head", b"PK\x03\x04 truncated"):
        (tmp_path / "head.npz").write_bytes(content)
        with pytest.raises(ArtifactInvalid, match=r"head\.npz is no head"):
            Head.load(tmp_path / "head.npz", 3)
