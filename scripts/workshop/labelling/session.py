"""A labelling session: an answer for each picture, which is saved at once and can be undone."""

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.workshop.label_table import LabelTable
from scripts.workshop.labelling.predictions_source import Prediction


@dataclass(frozen=True)
class Picture:
    """A picture to label: its name in the table, its file, and a model's prediction if any."""

    name: str
    path: Path
    prediction: Prediction | None = None


# The index of a picture, its row, None if it has none, and whether the picture is skipped.
_State = tuple[int, dict[str, str] | None, bool]


class LabelSession:
    """The pictures in the order of the page, and the table of their labels.

    It is thread-safe. An answer that cannot be saved has no effect and raises OSError.
    """

    def __init__(self, table: LabelTable, pictures: Sequence[Picture]) -> None:
        self.table = table
        self.pictures = tuple(pictures)
        self._skipped = [False] * len(self.pictures)
        self._history: list[_State] = []
        self._lock = threading.Lock()

    @property
    def labelled_count(self) -> int:
        """How many of the pictures have confirmed labels, including those with none of them."""
        return sum(self.labels(index) is not None for index in range(len(self.pictures)))

    def labels(self, index: int) -> frozenset[str] | None:
        """The confirmed labels of a picture, or None."""
        name = self.pictures[index].name
        return None if self.table.is_guess(name) else self.table.get(name)

    def suggestion(self, index: int) -> frozenset[str] | None:
        """The labels to suggest: those of the prediction, or else those in the table."""
        picture = self.pictures[index]
        return picture.prediction.labels if picture.prediction else self.table.get(picture.name)

    def is_skipped(self, index: int) -> bool:
        """Whether a picture was left out in this session."""
        return self._skipped[index]

    @property
    def can_undo(self) -> bool:
        """Whether there is an answer to undo."""
        return bool(self._history)

    def answer(self, index: int, labels: Collection[str] | None) -> None:
        """Set the labels of a picture; None leaves it out and removes it from the table."""
        name = self.pictures[index].name
        with self._lock:
            before = self._state(index)
            if labels is None:
                self.table.remove(name)
            else:
                self.table.put(name, labels)
            self._skipped[index] = labels is None
            self._save(before)
            self._history.append(before)

    def undo(self) -> int | None:
        """Undo the last answer; returns the index of its picture, or None if there is none."""
        with self._lock:
            if not self._history:
                return None
            before = self._history[-1]
            index = before[0]
            now = self._state(index)
            self._restore(before)
            self._save(now)
            self._history.pop()
            return index

    def _state(self, index: int) -> _State:
        row = self.table.rows.get(self.pictures[index].name)
        return index, row and dict(row), self._skipped[index]

    def _save(self, fallback: _State) -> None:
        try:
            self.table.save()
        except OSError:
            self._restore(fallback)
            raise

    def _restore(self, state: _State) -> None:
        index, row, is_skipped = state
        self._skipped[index] = is_skipped
        name = self.pictures[index].name
        if row is None:
            self.table.remove(name)
        else:
            self.table.rows[name] = row
