"""The table of labels that training reads: looked up and changed by picture, written whole."""

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Self

from model.training.data.table import TableUnreadable, read_table
from piqueue.commands.terminal import CommandFailed, written_whole

NAME, SPLIT, URL = "name", "split", "url"
# "yes" where nobody has looked at the picture yet, and a search or the like gave it its labels.
GUESSED = "guessed"
_RESERVED = (NAME, SPLIT, URL, GUESSED)
_SET, _UNSET = "1", "0"


class LabelTable:
    """Rows of a CSV by picture name: a column of 0 and 1 for each label, and any others.

    What other columns hold stays as it is. A row that is added to a table with a column `split`
    goes to `train`, so that the pictures a model is measured on stay the same ones.
    """

    def __init__(
        self,
        path: Path,
        labels: Sequence[str],
        columns: Sequence[str],
        rows: dict[str, dict[str, str]],
    ) -> None:
        self.path = path
        self.labels = tuple(labels)
        self.rows = rows
        self._columns = list(columns)

    @classmethod
    def begin(cls, path: Path, labels: Sequence[str]) -> Self:
        """A table without rows.

        Raises:
            CommandFailed: a label is none, is named twice or has the name of another column.
        """
        for label in labels:
            check_label(label)
        if len(set(labels)) < len(labels) or not labels:
            raise CommandFailed(f"name labels that differ from each other, not {list(labels)}")
        return cls(path, labels, [NAME, *labels], {})

    @classmethod
    def open(cls, path: Path, labels: Sequence[str] = ()) -> Self:
        """Read `path`. Its labels are `labels`, else all columns that hold nothing but 0 and 1.

        Raises:
            CommandFailed: the table cannot be read, or a row or label of it is not right.
        """
        columns, rows = read_rows(path, (NAME, *labels))
        by_name: dict[str, dict[str, str]] = {}
        for number, row in enumerate(rows, start=2):
            if not row[NAME] or row[NAME] in by_name:
                problem = f"{row[NAME]} is listed twice" if row[NAME] else "there is no name"
                raise CommandFailed(f"{path}, row {number}: {problem}")
            for label in labels:
                if row[label] not in (_SET, _UNSET):
                    raise CommandFailed(
                        f"{path}, row {number}: {label} is {row[label]!r}; write 0 or 1"
                    )
            by_name[row[NAME]] = row
        found = [
            column
            for column in columns
            if column not in _RESERVED and all(row[column] in (_SET, _UNSET) for row in rows)
        ]
        if not (labels or found):
            raise CommandFailed(f"{path} has no column of 0 and 1, which a label would be")
        return cls(path, labels or found, columns, by_name)

    def get(self, name: str) -> frozenset[str] | None:
        """The labels of a picture, None if it is not in the table."""
        row = self.rows.get(name)
        if row is None:
            return None
        return frozenset(label for label in self.labels if row[label] == _SET)

    def is_guess(self, name: str) -> bool:
        """Whether the labels of a picture are nobody's answer yet."""
        return self.rows.get(name, {}).get(GUESSED) == "yes"

    def put(
        self, name: str, labels: Collection[str], columns: Mapping[str, str] | None = None
    ) -> None:
        """Set the labels of a picture, no guess unless `columns` says so, and those columns."""
        row = self.rows.setdefault(name, {NAME: name, SPLIT: "train"})
        row |= {label: _SET if label in labels else _UNSET for label in self.labels}
        row[GUESSED] = ""
        self.note(name, columns or {})

    def note(self, name: str, columns: Mapping[str, str]) -> None:
        """Set columns of a picture's row that are no labels."""
        self._columns += [column for column in columns if column not in self._columns]
        self.rows[name] |= columns

    def remove(self, name: str) -> None:
        """Take a picture out, if it is there."""
        self.rows.pop(name, None)

    def add_label(self, label: str) -> None:
        """Give the table a further label, which no picture has yet."""
        check_label(label)
        if label in self._columns:
            raise CommandFailed(f"{self.path}: the column {label} is no label")
        self._columns.insert(self._columns.index(self.labels[-1]) + 1, label)
        self.labels = (*self.labels, label)
        for row in self.rows.values():
            row[label] = _UNSET

    def save(self) -> None:
        """Write the file, all of it or nothing."""
        write_rows(self.path, self._columns, self.rows.values())


def check_label(label: str) -> None:
    """Refuse with CommandFailed what cannot be the column of a label."""
    if not label.strip() or label in _RESERVED or set(label) & set(",;/\r\n"):
        raise CommandFailed(
            f"{label!r} cannot be a label: it would be no word of its own, or the table's "
            f"column {NAME}, {SPLIT}, {URL} or {GUESSED}"
        )


def read_rows(path: Path, columns: Sequence[str]) -> tuple[list[str], list[dict[str, str]]]:
    """The header and the rows of a CSV file in UTF-8, which must have `columns`.

    Raises:
        CommandFailed: it cannot be read, lacks a column, or has a row of another length.
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
                f"{path}, row {number}: has not the {len(header)} cells of the header"
            )
    return header, [row for _, row in rows]


def write_rows(path: Path, columns: Sequence[str], rows: Collection[Mapping[str, str]]) -> None:
    """Write a CSV file, all of it or nothing; cells that a row lacks are left empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    with written_whole(path) as file:
        file.write(text.getvalue().encode())
