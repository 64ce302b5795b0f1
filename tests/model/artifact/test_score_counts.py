"""How scores are counted for the card, and for the comparison of later scores with it."""

import numpy as np

from model.artifact.score_counts import BINS, HIGHEST, MOST_LABELS, count_scores


def test_each_label_has_its_counts_by_tenths() -> None:
    scores = np.array([[0.0, 0.05], [0.1, 0.95], [0.3, 1.0], [0.7, 0.999]])
    counts = count_scores(scores, ("beach", "city"))
    assert counts["beach"] == (1, 1, 0, 1, 0, 0, 0, 1, 0, 0)
    assert counts["city"] == (1, 0, 0, 0, 0, 0, 0, 0, 0, 3)


def test_a_model_with_many_labels_has_one_histogram_of_its_highest_scores() -> None:
    labels = tuple(f"class {index}" for index in range(MOST_LABELS + 1))
    scores = np.zeros((3, len(labels)))
    scores[0, 4], scores[1, 20], scores[2, 0] = 0.45, 0.92, 0.97
    assert count_scores(scores, labels) == {HIGHEST: (0, 0, 0, 0, 1, 0, 0, 0, 0, 2)}


def test_without_scores_all_counts_are_zero() -> None:
    assert count_scores(np.empty((0, 1)), ("beach",)) == {"beach": (0,) * BINS}
