"""Reads and writes the table of labels, a CSV file with a row for each picture."""

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from model.training.data.table import TableUnreadable, read_table
from piqueue.commands.terminal import CommandFailed, written_whole

NAME, SPLIT, URL = "name", "split", "url"
# "yes" until a person confirms labels that a search, for instance, has guessed.
GUESSED = "guessed"
_RESERVED = (NAME, SPLIT, URL, GUESSED)
_SET, _UNSET = "1", "0"


@dataclass
class LabelTable:
    """The rows by picture name, with a column of 0 and 1 for each label.

    The values of other columns are preserved. A row that is added to a table with a column `split`
    gets `train`, so that the pictures of the validation split stay the same.
    """

    path: Path
    labels: tuple[str, ...]
    _columns: list[str]
    rows: dict[str, dict[str, str]]

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
        return cls(path, tuple(labels), [NAME, *labels], {})

    @classmethod
    def open(cls, path: Path, labels: Sequence[str] = ()) -> Self:
        """Read `path`. Its labels are `labels`, or else all columns that only contain 0 and 1.

        Raises:
            CommandFailed: the table cannot be read, or a row or label is invalid.
        """
        columns, rows = read_rows(path, (NAME, *labels))
        by_name: dict[str, dict[str, str]] = {}
        for number, row in enumerate(rows, start=2):
            if not row[NAME] or row[NAME] in by_name:
                problem = f"{row[NAME]} is listed twice" if row[NAME] else "the name is empty"
                raise CommandFailed(f"{path}, row {number}: {problem}")
            check_cells(f"{path}, row {number}", row, labels)
            by_name[row[NAME]] = row
        found = [
            column
            for column in columns
            if column not in _RESERVED and all(row[column] in (_SET, _UNSET) for row in rows)
        ]
        if not (labels or found):
            raise CommandFailed(f"{path} has no column of 0 and 1, which would be a label")
        return cls(path, tuple(labels or found), columns, by_name)

    def get(self, name: str) -> frozenset[str] | None:
        """The labels of a picture, or None if it is not in the table."""
        row = self.rows.get(name)
        if row is None:
            return None
        return frozenset(label for label in self.labels if row[label] == _SET)

    def is_guess(self, name: str) -> bool:
        """Whether the labels of a picture are guesses that nobody has confirmed."""
        return self.rows.get(name, {}).get(GUESSED) == "yes"

    def put(
        self, name: str, labels: Collection[str], columns: Mapping[str, str] | None = None
    ) -> None:
        """Set the labels of a picture as confirmed, and then `columns`."""
        row = self.rows.setdefault(name, {NAME: name, SPLIT: "train"})
        row |= {label: _SET if label in labels else _UNSET for label in self.labels}
        row[GUESSED] = ""
        self.set_columns(name, columns or {})

    def set_columns(self, name: str, columns: Mapping[str, str]) -> None:
        """Set columns of a picture's row that are not labels."""
        self._columns += [column for column in columns if column not in self._columns]
        self.rows[name] |= columns

    def remove(self, name: str) -> None:
        """Remove a picture if it is in the table."""
        self.rows.pop(name, None)

    def add_label(self, label: str) -> None:
        """Add a label, which no picture has yet."""
        check_label(label)
        if label in self._columns:
            raise CommandFailed(f"{self.path}: the column {label} is not a label")
        self._columns.insert(self._columns.index(self.labels[-1]) + 1, label)
        self.labels = (*self.labels, label)
        for row in self.rows.values():
            row[label] = _UNSET

    def save(self) -> None:
        """Write the file completely or not at all."""
        write_rows(self.path, self._columns, self.rows.values())


def check_label(label: str) -> None:
    """Raise CommandFailed if a text cannot be the column of a label."""
    if not label.strip() or label in _RESERVED or set(label) & set(",;/\r\n"):
        raise CommandFailed(
            f"{label!r} cannot be a label: it must not be empty, contain , ; / or a line break, "
            f"or be {', '.join(_RESERVED)}"
        )


def check_cells(where: str, row: Mapping[str, str], labels: Sequence[str]) -> None:
    """Raise CommandFailed, with the row as `where`, if a label's cell is not 0 or 1."""
    for label in labels:
        if row[label] not in (_SET, _UNSET):
            raise CommandFailed(f"{where}: {label} is {row[label]!r}; write 0 or 1")


def read_rows(path: Path, columns: Sequence[str]) -> tuple[list[str], list[dict[str, str]]]:
    """The header and the rows of a CSV file in UTF-8 with at least `columns`.

    Raises:
        CommandFailed: it cannot be read, lacks a column, or a row differs in length.
    """
    try:
        header, rows = read_table(path)
    except TableUnreadable as error:
        raise CommandFailed(str(error)) from None
    missing = [column for column in columns if column not in header]
    if missing:
        raise CommandFailed(
            f"{path} has no column {', '.join(missing)}; it has {', '.join(header)}"
        )
    for number, row in rows:
        if None in row or None in row.values():
            raise CommandFailed(
                f"{path}, row {number}: the number of cells is not {len(header)}, as in the header"
            )
    return header, [row for _, row in rows]


def write_rows(path: Path, columns: Sequence[str], rows: Collection[Mapping[str, str]]) -> None:
    """Write a CSV file completely or not at all; cells that a row lacks are empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    with written_whole(path) as file:
        file.write(text.getvalue().encode())
