"""Merges two versions of a table of labels, picture by picture."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from model.training.data.table import GUESSED, LEFT_OUT, YES, guessed_labels, is_left_out
from scripts.workshop.table_file import Row

SET, UNSET = "1", "0"


@dataclass(frozen=True)
class Answer:
    """What a row says: the labels of the picture, which of all labels are guesses, or left out."""

    labels: frozenset[str]
    guessed: frozenset[str]
    is_left_out: bool

    @classmethod
    def of(cls, row: Row, labels: Collection[str]) -> "Answer":
        """What a row says of `labels`."""
        is_set = frozenset(label for label in labels if row[label] == SET)
        return cls(is_set, guessed_labels(row, labels), is_left_out(row))


def guessed_cell(guessed: Collection[str], all_labels: Sequence[str]) -> str:
    """The cell of the column `guessed`."""
    names = [label for label in all_labels if label in guessed]
    return YES if names and len(names) == len(all_labels) else ";".join(names)


@dataclass(frozen=True)
class LabelMerge:
    """Merges the rows `mine` with `theirs`, which another program has made of the same rows `base`.

    `answered` are the pictures whose rows in `mine` are answers that a person gave here. `labels`
    are those that can be answered here, of `all_labels`.
    """

    labels: Sequence[str]
    all_labels: Sequence[str]
    answered: Collection[str]
    base: Mapping[str, Row]
    mine: Mapping[str, Row]
    theirs: Mapping[str, Row]

    def merge(self) -> tuple[dict[str, Row], list[str]]:
        """The merged rows, and the pictures whose answers in `mine` are not among them."""
        rows, lost = {}, []
        for name in dict.fromkeys((*self.theirs, *self.mine)):
            mine, theirs = self.mine.get(name), self.theirs.get(name)
            kept = mine if self._keeps_mine(name) else theirs
            if self._is_own(name) and self._answer(mine) != self._answer(kept):
                lost.append(name)
            if kept is not None:
                rows[name] = self._combined(name, kept)
        return rows, lost

    def _keeps_mine(self, name: str) -> bool:
        """Whether the answer of `mine` is kept: `theirs` has the old one, or no person's."""
        theirs = self.theirs.get(name)
        if self._answer(theirs) == self._answer(self.base.get(name)):
            return True
        return self._is_own(name) and not self._is_answered(theirs)

    def _combined(self, name: str, kept: Row) -> Row:
        """The row with the answer `kept`, and for each other cell the version that changed."""
        base, mine, theirs = (rows.get(name) for rows in (self.base, self.mine, self.theirs))
        if mine is None or theirs is None:
            return kept
        cells = {
            column: theirs.get(column, "")
            if theirs.get(column, "") != (base or {}).get(column, "")
            else mine.get(column, "")
            for column in {**theirs, **mine}
        }
        cells |= {label: kept[label] for label in self.labels}
        others = guessed_labels(theirs, self.all_labels) - set(self.labels)
        guessed = others | guessed_labels(kept, self.labels)
        cells[GUESSED] = guessed_cell(guessed, self.all_labels)
        cells[LEFT_OUT] = kept.get(LEFT_OUT, "")
        return cells

    def _answer(self, row: Row | None) -> Answer | None:
        return None if row is None else Answer.of(row, self.labels)

    def _is_own(self, name: str) -> bool:
        """Whether `mine` has an answer that a person gave here."""
        return name in self.answered and self._is_answered(self.mine.get(name))

    def _is_answered(self, row: Row | None) -> bool:
        """Whether a person has answered, at least for some labels, or left the picture out."""
        return row is not None and (
            is_left_out(row) or len(guessed_labels(row, self.labels)) < len(self.labels)
        )
