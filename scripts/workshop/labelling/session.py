"""A labelling session: an answer for each picture, which is saved at once and can be undone."""

import threading
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

from piqueue.commands.progress import tell
from piqueue.commands.terminal import CommandFailed
from scripts.workshop.label_table import LabelTable
from scripts.workshop.labelling.predictions_source import Prediction
from scripts.workshop.table_file import Row


@dataclass(frozen=True)
class Picture:
    """A picture to label: its name in the table, its file, and a model's prediction if any."""

    name: str
    path: Path
    prediction: Prediction | None = None


@dataclass(frozen=True)
class Answered:
    """A person's answer: labels, None if there are none yet, or that the picture is left out."""

    labels: frozenset[str] | None = None
    is_left_out: bool = False

    def __str__(self) -> str:
        if self.labels is None:
            return "left out" if self.is_left_out else "no answer"
        return ", ".join(sorted(self.labels)) or "no label"


class LabelSession:
    """The pictures in the order of the page, and the table of their labels.

    It is thread-safe. An answer that cannot be saved has no effect and raises OSError or
    CommandFailed. `conflicts` says which answers were not saved, or are no longer in the table,
    because another window or program has given other ones.
    """

    def __init__(self, table: LabelTable, pictures: Sequence[Picture]) -> None:
        self.table = table
        self.pictures = tuple(pictures)
        self.conflicts: list[str] = []
        # For each answer: the index of a picture, and the row that it had before.
        self._history: list[tuple[int, Row | None]] = []
        self._lock = threading.Lock()

    @property
    def labelled_count(self) -> int:
        """How many of the pictures have confirmed labels, including those with none of them."""
        return sum(self.answered(index).labels is not None for index in range(len(self.pictures)))

    def answered(self, index: int) -> Answered:
        """The answer of a person for a picture."""
        name = self.pictures[index].name
        if self.table.is_left_out(name):
            return Answered(is_left_out=True)
        return Answered(None if self.table.guessed(name) else self.table.get(name))

    def suggestion(self, index: int) -> frozenset[str] | None:
        """The labels to suggest: those of a person, and else of the prediction or the table."""
        picture = self.pictures[index]
        known = self.table.get(picture.name)
        if picture.prediction is None or known is None:
            return picture.prediction.labels if picture.prediction else known
        guessed = self.table.guessed(picture.name)
        return (known - guessed) | (picture.prediction.labels & guessed)

    @property
    def revision(self) -> int:
        """Changes when a picture may have another answer than those given here."""
        return self.table.merge_count + len(self.conflicts)

    @property
    def can_undo(self) -> bool:
        """Whether there is an answer to undo."""
        return bool(self._history)

    def answer(
        self, index: int, labels: Collection[str] | None, shown: Answered | None = None
    ) -> None:
        """Set the labels of a picture; None leaves it out.

        `shown` is the answer that the person saw. If the table has another one by now, that one is
        kept.
        """
        name = self.pictures[index].name
        given = Answered(None if labels is None else frozenset(labels), labels is None)
        with self._lock:
            if shown is not None and self.answered(index) not in (shown, given):
                self._report(index, given)
                return
            before = self.table.rows.get(name)
            self.table.answer(name, labels)
            if self._save(index, before):
                self._history.append((index, before))

    def undo(self) -> int | None:
        """Undo the last answer; returns the index of its picture, or None if there is none."""
        with self._lock:
            if not self._history:
                return None
            index, row = self._history[-1]
            name = self.pictures[index].name
            now = self.table.rows.get(name)
            self.table.set_row(name, row)
            if self._save(index, now):
                self._history.pop()
            return index

    def _save(self, index: int, before: Row | None) -> bool:
        """Save the table; returns whether the picture has the row that it was given."""
        try:
            lost = self.table.save()
        except (OSError, CommandFailed):
            self.table.set_row(self.pictures[index].name, before)
            raise
        indexes = {at for at, picture in enumerate(self.pictures) if picture.name in lost}
        for at in sorted(indexes):
            answer = lost[self.pictures[at].name]
            labels = None if answer.is_left_out else answer.labels
            self._report(at, Answered(labels, answer.is_left_out))
        self._history = [one for one in self._history if one[0] not in indexes]
        return index not in indexes

    def _report(self, index: int, given: Answered) -> None:
        text = (
            f"{self.pictures[index].name}: another window or program has answered "
            f"{self.answered(index)}, which is kept. Your answer, {given}, is not: "
            "give it again to replace the other one"
        )
        self.conflicts.append(text)
        tell(text)
