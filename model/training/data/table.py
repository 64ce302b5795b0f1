"""Reads a table of pictures: a CSV file in UTF-8, separated by commas, with a header."""

import csv
import io
import re
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

YES = "yes"
GUESSED = "guessed"
"""Column of the labels that nobody has confirmed, separated by semicolons; `yes` for all labels."""
LEFT_OUT = "left_out"
"""Column that is `yes` for a picture that a person has left out."""

_LABEL_CELLS = {"0.0": "0", "false": "0", "1.0": "1", "true": "1"}
_OTHER_KINDS = {
    b"PK\3\4": "a workbook or a zip archive",
    b"\xd0\xcf\x11\xe0": "a workbook",
    b"\x1f\x8b": "compressed",
    b"<": "a page of HTML or XML",
}
_LINE_BREAK = re.compile(r"\r\n?|\n")
# The name of a file, or a URL.
_NAME = re.compile(r"://|\.\w{2,5}$")


class TableUnreadable(ValueError):
    """A file is not such a table; the message names it and says what to do."""


def read_table(
    path: Path, payload: bytes | None = None
) -> tuple[list[str], list[tuple[int, dict[str, Any]]]]:
    """The columns, and each row with the line at which it begins, where the header is line 1.

    `payload` is the content of the file if it has been read before. A row that is too short has
    None for its missing cells; surplus cells are under the key None. Empty lines, and empty columns
    at the end, are left out.

    Raises:
        TableUnreadable: the file is missing, empty, or has another format.
    """
    try:
        payload = path.read_bytes() if payload is None else payload
    except FileNotFoundError:
        raise TableUnreadable(f"{path} does not exist: give the path of a table") from None
    except OSError as error:
        raise TableUnreadable(
            f"{path} cannot be read ({error}): give a table that you may read"
        ) from error
    for beginning, kind in _OTHER_KINDS.items():
        if payload.startswith(beginning):
            raise TableUnreadable(f"{path} is {kind}: save it as CSV in UTF-8")
    try:
        text = io.StringIO(payload.decode("utf-8-sig"), newline="")
    except UnicodeDecodeError as error:
        raise TableUnreadable(f"{path}{_bad_line(error)}: save it as CSV in UTF-8") from None
    columns: list[str] = []
    rows: list[tuple[int, dict[str, Any]]] = []
    for line, cells in _numbered(text, path):
        if not columns:
            columns = _columns(cells, f"{path}, line {line}")
            continue
        if (at := _cell_of_rows(cells)) is not None and at < len(columns):
            raise TableUnreadable(
                f"{path}, line {line}, column {columns[at]!r}: the cell holds whole rows: is a "
                "quotation mark at its beginning not closed? Quote the cell, and write that mark "
                "twice"
            )
        row: dict[Any, Any] = dict(zip_longest(columns, cells[: len(columns)]))
        if any(surplus := cells[len(columns) :]):
            row[None] = surplus
        rows.append((line, row))
    if not columns:
        raise TableUnreadable(f"{path} is empty: write a header and a row for each picture")
    return columns, rows


def _numbered(text: io.StringIO, path: Path) -> Iterator[tuple[int, list[str]]]:
    """The cells of each line that has some, with the line at which they begin."""
    reader = csv.reader(text, strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, cells
            line = reader.line_num + 1
    except csv.Error as error:
        where = f"{path}, line {line}: the row that begins there"
        if "field limit" in str(error):
            limit = f"{csv.field_size_limit():,} characters"
            raise TableUnreadable(f"{where} has a cell of more than {limit}: shorten it") from None
        raise TableUnreadable(
            f"{where} is not CSV ({error}): a cell that holds a quotation mark must be quoted as a "
            "whole, with that mark written twice"
        ) from error


def _columns(header: list[str], where: str) -> list[str]:
    columns = list(header)
    while len(columns) > 1 and not columns[-1].strip():
        columns.pop()
    if len(columns) == 1 and set(columns[0]) & set(";\t"):
        raise TableUnreadable(
            f"{where}: {columns[0]!r} is separated by semicolons or tabs: save it with commas"
        )
    if len(set(columns)) < len(columns):
        [(name, _)] = Counter(columns).most_common(1)
        raise TableUnreadable(
            f"{where}, has two columns of the same name, {name!r}: rename or remove one"
        )
    return columns


def _cell_of_rows(row: Sequence[str]) -> int | None:
    """Find a cell that holds rows, as one does that begins with a stray quotation mark.

    Rows are told by a column in which this row names a file or a URL, and they do too.
    """
    width = len(row)
    for at, cell in enumerate(row):
        first, *others = (line.split(",") for line in _LINE_BREAK.split(cell))
        if not others:
            continue
        *between, last = others
        for name_at in (place for place, name in enumerate(row) if _NAME.search(name)):
            if any(len(line) == width and _NAME.search(line[name_at]) for line in between):
                return at
            # The cells before this one belong to the first line, and those after it to the last.
            if at + len(first) == width == len(last) + width - at - 1:
                in_first = row[name_at] if name_at < at else first[name_at - at]
                in_last = [*last, *row[at + 1 :]][name_at]
                if _NAME.search(in_first) and _NAME.search(in_last):
                    return at
    return None


def cells_problem(row: Mapping[Any, Any]) -> str | None:
    """Say what is wrong with a row that has more or fewer cells than the header, or None."""
    if None in row:
        return (
            "more cells than the header: name each column there, and put names that contain a "
            "comma in quotes"
        )
    if None in row.values():
        return "fewer cells than the header: add the missing cells"
    return None


def label_cell(cell: str) -> str:
    """0 or 1 for a label's cell that says so, also as Excel and pandas write it; or else the cell.

    Spaces around it are removed.
    """
    stripped = cell.strip()
    return _LABEL_CELLS.get(stripped.lower(), stripped)


def wrong_label_cells(cells: Sequence[str]) -> list[int]:
    """The indexes of the cells that are not 0 or 1, if the column is one of a label nevertheless.

    It is if these are one cell, or up to a tenth of the cells that are not empty, and it has at
    least four that are right.
    """
    wrong = [index for index, cell in enumerate(cells) if cell not in ("0", "1", "")]
    right_count = len(cells) - len(wrong) - cells.count("")
    is_label = right_count >= 4 and len(wrong) <= max(1, (right_count + len(wrong)) // 10)
    return wrong if is_label else []


def guessed_labels(row: Mapping[str, Any], labels: Collection[str]) -> frozenset[str]:
    """Those of `labels` that a row guesses: nobody has confirmed whether the picture has them."""
    cell = row.get(GUESSED) or ""
    return frozenset(labels) & (frozenset(labels) if cell == YES else frozenset(cell.split(";")))


def is_left_out(row: Mapping[str, Any]) -> bool:
    """Whether a person has left the picture of a row out."""
    return row.get(LEFT_OUT) == YES


def _bad_line(error: UnicodeDecodeError) -> str:
    """Say where a file has a byte that is not UTF-8."""
    payload = error.object
    if payload.startswith((BOM_UTF16_LE, BOM_UTF16_BE)):
        return " is not UTF-8 but UTF-16"
    line = payload.count(b"\n", 0, error.start) + 1
    return f", line {line}: the byte 0x{payload[error.start]:02X} is not UTF-8"
