"""Counts the scores of committed chunks, until the heartbeat adds them to those in Redis."""

import threading
from collections.abc import Mapping, Sequence

import numpy as np

from model.artifact.score_counts import ScoreCounts, count_scores
from worker.jobs.items import ItemResult


class ScoreTally:
    """Counts by the key of a model; what a process has not written when it is killed is lost."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The labels of each model, by its key; of several models, those of each.
        self._labels: dict[str, Mapping[str, Sequence[str]]] = {}
        self._counts: dict[str, ScoreCounts] = {}

    def know(self, key: str, labels: Mapping[str, Sequence[str]]) -> None:
        """Remember the labels of a model; of one that stands for several, those of each by key."""
        self._labels[key] = labels

    def add(self, key: str, results: Sequence[ItemResult]) -> None:
        """Count the scores of a chunk."""
        rows = [result.scores for result in results if result.scores is not None]
        if not rows or key not in self._labels:
            return
        scores, start = np.array(rows), 0
        for model_key, labels in self._labels[key].items():
            counts = count_scores(scores[:, start : start + len(labels)], labels)
            start += len(labels)
            self._merge({model_key: counts})

    def take(self) -> dict[str, ScoreCounts]:
        """Return the counts, and begin again."""
        with self._lock:
            counts, self._counts = self._counts, {}
        return counts

    def give_back(self, counts: Mapping[str, ScoreCounts]) -> None:
        """Count again what could not be written."""
        self._merge(counts)

    def _merge(self, more: Mapping[str, ScoreCounts]) -> None:
        with self._lock:
            for key, counts in more.items():
                own = self._counts.setdefault(key, {})
                for label, row in counts.items():
                    before = own.get(label, (0,) * len(row))
                    own[label] = tuple(map(int.__add__, before, row))
