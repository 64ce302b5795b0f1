"""One sitting at a table of labels: an answer for each picture, saved at once, and undone."""

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from scripts.workshop.label_table import LabelTable
from scripts.workshop.labelling.predictions_source import Opinion


@dataclass(frozen=True)
class Picture:
    """A picture to be labelled: its name in the table, its file, what a model says of it."""

    name: str
    path: Path
    opinion: Opinion | None = None


@dataclass(frozen=True)
class _Step:
    """How a picture stood before an answer."""

    index: int
    row: dict[str, str] | None
    was_skipped: bool


class Labelling:
    """Pictures in the order they are shown, and the table they are labelled in.

    Several threads may call it at once. An answer that cannot be saved is not taken: OSError.
    """

    def __init__(self, table: LabelTable, pictures: Sequence[Picture]) -> None:
        self.table = table
        self.pictures = tuple(pictures)
        self._skipped: set[int] = set()
        self._steps: list[_Step] = []
        self._lock = threading.Lock()

    @property
    def answered_count(self) -> int:
        """How many of the pictures have labels, be it none."""
        return sum(self.labels(index) is not None for index in range(len(self.pictures)))

    def labels(self, index: int) -> frozenset[str] | None:
        """The labels of a picture, None if it was not labelled yet."""
        name = self.pictures[index].name
        return None if self.table.is_guess(name) else self.table.get(name)

    def suggestion(self, index: int) -> frozenset[str] | None:
        """The labels a picture would get: those of a model, else what the table guesses."""
        picture = self.pictures[index]
        return picture.opinion.labels if picture.opinion else self.table.get(picture.name)

    def is_skipped(self, index: int) -> bool:
        """Whether a picture was left out in this sitting."""
        return index in self._skipped

    @property
    def can_undo(self) -> bool:
        """Whether there is an answer to take back."""
        return bool(self._steps)

    def answer(self, index: int, labels: Collection[str] | None) -> None:
        """Give a picture its labels; None leaves it out, and takes it out of the table."""
        name = self.pictures[index].name
        with self._lock:
            before = self._now(index)
            if labels is None:
                self.table.remove(name)
                self._skipped.add(index)
            else:
                self.table.put(name, labels)
                self._skipped.discard(index)
            self._save(before)
            self._steps.append(before)

    def undo(self) -> int | None:
        """Take the last answer back; gives the picture it was of."""
        with self._lock:
            if not self._steps:
                return None
            step = self._steps[-1]
            now = self._now(step.index)
            self._restore(step)
            self._save(now)
            self._steps.pop()
            return step.index

    def _now(self, index: int) -> _Step:
        row = self.table.rows.get(self.pictures[index].name)
        return _Step(index, row and dict(row), index in self._skipped)

    def _save(self, otherwise: _Step) -> None:
        try:
            self.table.save()
        except OSError:
            self._restore(otherwise)
            raise

    def _restore(self, step: _Step) -> None:
        name = self.pictures[step.index].name
        if step.row is None:
            self.table.remove(name)
        else:
            self.table.rows[name] = step.row
        if step.was_skipped:
            self._skipped.add(step.index)
        else:
            self._skipped.discard(step.index)
