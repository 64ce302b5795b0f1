"""The table of labels, a CSV file with a row for each picture that several programs may change.

All commands read and write the table here. A person's answer is the labels of a row, or that its
picture is left out. It is never overwritten by a guess, nor by an answer that was given without
knowing it.
"""

from codecs import BOM_UTF8
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from model.training.data.table import (
    GUESSED,
    LEFT_OUT,
    YES,
    guessed_labels,
    is_left_out,
    label_cell,
)
from piqueue.commands.terminal import CommandFailed
from scripts.workshop.label_merge import SET, UNSET, Answer, LabelMerge, guessed_cell
from scripts.workshop.table_file import Row, csv_bytes, locked, read_rows, replace_file

NAME, SPLIT, URL = "name", "split", "url"
# What belongs together, such as a video or a place.
GROUP = "group"
# The one label of each picture, in a table without a column of 0 and 1 for each label.
LABEL = "label"
BACKUP_SUFFIX = ".bak"
RESERVED = (NAME, SPLIT, URL, GROUP, GUESSED, LEFT_OUT)


@dataclass(frozen=True)
class _File:
    """The file as it was read or written last; `payload` is None if there was none."""

    payload: bytes | None = None
    columns: Sequence[str] = ()
    rows: Mapping[str, Row] = field(default_factory=dict)


class LabelTable:
    """The rows by picture name, with a column of 0 and 1 for each label.

    The values of other columns are preserved. A row that is added to a table with a column `split`
    gets `train`, so that the pictures of the validation split stay the same. `labels` are those
    that are answered here; the table may have more. Rows are replaced, never changed in place.
    `merge_count` is how many times others had changed the file before it was saved.
    """

    def __init__(
        self, path: Path, labels: Sequence[str], columns: Sequence[str], name_column: str = NAME
    ) -> None:
        self.path = path
        self.labels = tuple(labels)
        self.rows: dict[str, Row] = {}
        self.merge_count = 0
        self._all_labels = self.labels
        self._columns = list(columns)
        self._name_column = name_column
        self._answered: set[str] = set()
        self._file = _File()
        self._is_backed_up = False

    @classmethod
    def create(cls, path: Path, labels: Sequence[str]) -> Self:
        """A table without rows.

        Raises:
            CommandFailed: there is no label, or one is invalid, repeated, or a reserved column.
        """
        for label in labels:
            check_label(label)
        if len(set(labels)) < len(labels) or not labels:
            raise CommandFailed(f"the labels must differ from each other, not be {list(labels)}")
        return cls(path, labels, [NAME, *labels])

    @classmethod
    def open(
        cls,
        path: Path,
        labels: Sequence[str] = (),
        *,
        name_column: str = NAME,
        may_lack_labels: bool = False,
    ) -> Self:
        """Read `path`. Its labels are `labels`, or else all columns that only contain 0 and 1.

        An empty cell of a label is a guess that the picture does not have it.

        Raises:
            CommandFailed: the table cannot be read, or a row or label is invalid.
        """
        payload = path.read_bytes() if path.exists() else None
        columns, rows = read_rows(path, (name_column, *labels), payload)
        found = label_columns(columns, rows, name_column)
        if not (labels or found or may_lack_labels):
            raise CommandFailed(f"{path} has no label: add a column of 0 and 1")
        table = cls(path, labels or found, columns, name_column)
        table._all_labels = tuple(dict.fromkeys((*table.labels, *found)))
        table.rows = table._by_name(rows)
        table._file = _File(payload, columns, dict(table.rows))
        return table

    def get(self, name: str) -> frozenset[str] | None:
        """The labels of a picture, or None if it is not in the table."""
        row = self.rows.get(name)
        return None if row is None else Answer.of(row, self.labels).labels

    def guessed(self, name: str) -> frozenset[str]:
        """The labels that nobody has confirmed or denied for a picture in the table."""
        return guessed_labels(self.rows.get(name, {}), self.labels)

    def is_left_out(self, name: str) -> bool:
        """Whether a person has left a picture out."""
        return is_left_out(self.rows.get(name, {}))

    def answer(self, name: str, labels: Collection[str] | None) -> None:
        """Set what a person says: the labels of a picture, or None to leave it out."""
        row = self.rows.get(name) or {self._name_column: name, SPLIT: "train", GUESSED: YES}
        cells = {label: row.get(label, UNSET) for label in self._all_labels} | {LEFT_OUT: YES}
        if labels is not None:
            cells |= {label: SET if label in labels else UNSET for label in self.labels}
            others = guessed_labels(row, self._all_labels) - set(self.labels)
            cells |= {GUESSED: guessed_cell(others, self._all_labels), LEFT_OUT: ""}
        self._answered.add(name)
        self.set_row(name, row | cells)

    def add(self, row: Row) -> None:
        """Add a picture; of one in the table, only guesses and empty cells change."""
        name = row[self._name_column]
        before = self.rows.get(name, {SPLIT: row.get(SPLIT) or "train", GUESSED: YES})
        guesses = guessed_labels(before, self._all_labels)
        kept = {column for column, cell in before.items() if cell and column not in guesses}
        if name in self.rows:
            kept.add(LEFT_OUT)
        cells = {column: cell for column, cell in row.items() if column not in kept}
        guesses &= guessed_labels(row, self._all_labels)
        cells[GUESSED] = guessed_cell(guesses, self._all_labels)
        self.set_row(name, self._complete(before | cells))

    def set_row(self, name: str, row: Row | None) -> None:
        """Replace the row of a picture, or remove it."""
        if row is None:
            self.rows.pop(name, None)
            return
        self.rows[name] = row
        known = (*self._columns, SPLIT, GUESSED, LEFT_OUT)
        self._columns += [column for column in row if column not in known]

    def set_cell(self, name: str, column: str, cell: str) -> None:
        """Set a cell that is not a label's."""
        if column not in self._columns:
            self._columns.append(column)
        self.rows[name] = self.rows[name] | {column: cell}

    def add_label(self, label: str) -> None:
        """Add a label; that no picture in the table has it is a guess."""
        check_label(label)
        if label in self._columns:
            raise CommandFailed(f"{self.path}: {label} is not a label: write 0 or 1 in each row")
        at = max((self._columns.index(one) for one in self.labels), default=0) + 1
        self._columns.insert(at, label)
        self.labels, self._all_labels = (*self.labels, label), (*self._all_labels, label)
        self.rows = {name: self._complete(row) for name, row in self.rows.items()}

    def save(self) -> dict[str, Answer]:
        """Write the file completely or not at all, with what other programs have changed in it.

        The first call keeps the file as it was before, with the suffix .bak.

        Returns the answers given here that differ from those that a person has given in the file
        meanwhile, and which the table has now.

        Raises:
            CommandFailed: the file was removed, is not a table of these labels any more, or cannot
                be written.
        """
        before = (self.rows, self._columns, self._all_labels, self._answered, self._file)
        try:
            with locked(self.path):
                return self._save()
        except BaseException as error:
            self.rows, self._columns, self._all_labels, self._answered, self._file = before
            if isinstance(error, OSError):
                raise CommandFailed(
                    f"{self.path} cannot be written ({error.strerror}) and stays as it was: make "
                    "room on its disk, or its folder writable"
                ) from error
            raise

    def _save(self) -> dict[str, Answer]:
        found = self.path.read_bytes() if self.path.exists() else None
        lost = {}
        if found is None and self._file.payload is not None:
            raise CommandFailed(f"{self.path} was removed after it was read: put it back")
        if found is not None and found != self._file.payload:
            lost = self._merge(found)
        self._columns += [
            column
            for column in (GUESSED, LEFT_OUT)
            if column not in self._columns and any(row.get(column) for row in self.rows.values())
        ]
        payload = csv_bytes(self._columns, self.rows.values())
        if found and found.startswith(BOM_UTF8):  # without it, Excel reads another encoding
            payload = BOM_UTF8 + payload
        if found is not None and payload != found and not self._is_backed_up:
            replace_file(self.path.with_name(self.path.name + BACKUP_SUFFIX), found)
            self._is_backed_up = True
        if payload != found:
            replace_file(self.path, payload)
        self._file = _File(payload, tuple(self._columns), dict(self.rows))
        return lost

    def _merge(self, found: bytes) -> dict[str, Answer]:
        """Take what other programs have changed; returns the answers that they have replaced."""
        required = [label for label in self.labels if label in self._file.columns]
        columns, rows = read_rows(self.path, (self._name_column, *required), found)
        new_labels = label_columns(columns, rows, self._name_column)
        self._all_labels = tuple(dict.fromkeys((*self._all_labels, *new_labels)))
        new = (column for column in self._columns if column not in self._file.columns)
        self._columns = list(dict.fromkeys((*columns, *new)))
        base, mine, theirs = (
            {name: self._complete(row) for name, row in given.items()}
            for given in (self._file.rows, self.rows, self._by_name(rows))
        )
        merge = LabelMerge(self.labels, self._all_labels, self._answered, base, mine, theirs)
        merged, names = merge.merge()
        lost = {name: Answer.of(mine[name], self.labels) for name in names}
        self._answered = self._answered - lost.keys()
        self.merge_count += 1
        self.rows = {}
        for name, row in merged.items():
            self.set_row(name, row)
        return lost

    def _by_name(self, rows: Collection[Row]) -> dict[str, Row]:
        by_name: dict[str, Row] = {}
        for number, row in enumerate(rows, start=2):
            name = row[self._name_column]
            if not name or name in by_name:
                problem = f"{name} is listed twice" if name else "the name is empty"
                raise CommandFailed(f"{self.path}, row {number}: {problem}: correct it")
            cells = {label: label_cell(row[label]) for label in self.labels if label in row}
            by_name[name] = self._complete(row | cells)
            check_cells(f"{self.path}, row {number}", by_name[name], self.labels)
        return by_name

    def _complete(self, row: Row) -> Row:
        """The row, in which an empty cell of a label becomes a guess."""
        empty = [label for label in self._all_labels if not row.get(label)]
        if not empty:
            return row
        guessed = guessed_labels(row, self._all_labels).union(empty)
        cell = guessed_cell(guessed, self._all_labels)
        return row | dict.fromkeys(empty, UNSET) | {GUESSED: cell}


def label_columns(
    columns: Sequence[str], rows: Collection[Row], name_column: str = NAME
) -> tuple[str, ...]:
    """The columns that only contain 0 and 1, and perhaps empty cells.

    Those of TRUE and FALSE are none, because a command that writes the table would change them.
    """
    found = []
    for column in columns:
        if is_label({row[column] for row in rows}) and column not in (*RESERVED, name_column):
            found.append(column)
    return tuple(found)


def is_label(cells: Collection[str]) -> bool:
    """Whether the cells of a column are 0 and 1, and perhaps empty."""
    return set(cells) <= {SET, UNSET, ""} and set(cells) != {""}


def check_label(label: str) -> None:
    """Raise CommandFailed if a text cannot be the column of a label."""
    if not label.strip() or label in RESERVED or set(label) & set(";/\r\n"):
        raise CommandFailed(
            f"{label!r} cannot be a label: it must not be empty, contain ; / or a line break, "
            f"or be {', '.join(RESERVED)}"
        )


def check_cells(where: str, row: Mapping[str, str], labels: Sequence[str]) -> None:
    """Raise CommandFailed, with the row as `where`, if a label's cell is not 0 or 1."""
    for label in labels:
        if row[label] not in (SET, UNSET):
            raise CommandFailed(f"{where}: {label} is {row[label]!r}; write 0 or 1")
