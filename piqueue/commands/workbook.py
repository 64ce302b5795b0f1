"""Writes results as an Excel workbook, in constant memory."""

import csv
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, BinaryIO, TextIO

from piqueue.commands.progress import tell
from piqueue.commands.terminal import CommandFailed

# Limits of the format; the header is one of the rows.
SHEET_ROWS = 1_048_576
SHEET_COLUMNS = 16_384
CELL_CHARS = 32_767
# Numbers that Excel keeps as they are written. It would make 7 of 007, and keeps 15 digits. Scores
# have five decimals, and the API writes the lowest ones as 1e-05 to 9e-05.
_NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?|[1-9]e-05")
_DIGITS = 15
# The API puts an apostrophe before a cell of a CSV file that a spreadsheet would evaluate.
_ESCAPED = re.compile(r"'[=+\-@\t\r\n]")
_WIDEST_CHARS = 60


def check_library() -> None:
    """Raise CommandFailed if workbooks cannot be written here."""
    if find_spec("openpyxl") is None:
        raise CommandFailed(
            "writing Excel workbooks needs openpyxl: pip install 'piqueue[tables]', or write .csv"
        )


@contextmanager
def _cells_of_any_length() -> Iterator[None]:
    """Let `csv`, whose limit is that of the whole process, read longer cells."""
    limit = csv.field_size_limit(2**31 - 1)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


@_cells_of_any_length()
def write_workbook(table: TextIO, target: BinaryIO) -> None:
    """Write `table`, a CSV file of the API, as a workbook with as many sheets as it needs.

    A column has numbers if Excel keeps each of its cells as it is written; the other cells are
    text, and none is a formula or a link.

    Raises:
        CommandFailed: there are more columns than a workbook can have.
    """
    from openpyxl import Workbook
    from openpyxl.cell import WriteOnlyCell
    from openpyxl.cell.cell import ILLEGAL_CHARACTERS_RE
    from openpyxl.styles import Font
    from openpyxl.utils import get_column_letter

    rows = _rows(table)
    header = next(rows)
    if len(header) > SHEET_COLUMNS:
        raise CommandFailed(
            f"the results have {len(header):,} columns, and a workbook has at most "
            f"{SHEET_COLUMNS:,}: add --top-k, or write .csv"
        )
    is_numeric, widths, cut_count = [True] * len(header), [*map(len, header)], 0
    for row in rows:
        for at, cell in enumerate(row):
            is_numeric[at] = is_numeric[at] and (not cell or _is_number(cell))
            widths[at] = max(widths[at], len(cell))
            cut_count += len(cell) > CELL_CHARS
    if cut_count:
        tell(f"{cut_count} cells are cut to {CELL_CHARS:,} characters, which is what Excel allows")
    book = Workbook(write_only=True)

    def new_sheet() -> Any:
        sheet = book.create_sheet(f"results {len(book.worksheets) + 1}")
        sheet.freeze_panes = "A2"
        for at, width in enumerate(widths, 1):
            column = sheet.column_dimensions[get_column_letter(at)]
            column.width = min(width, _WIDEST_CHARS) + 2
        names = [text(sheet, name) for name in header]
        for name in names:
            name.font = Font(bold=True)
        sheet.append(names)
        return sheet

    def text(sheet: Any, value: str) -> Any:
        cell = WriteOnlyCell(sheet, ILLEGAL_CHARACTERS_RE.sub("\ufffd", value))
        cell.data_type = "s"  # of a text that begins with = too
        return cell

    def number(sheet: Any, value: str) -> Any:
        cell = WriteOnlyCell(sheet, float(value) if "." in value or "e" in value else int(value))
        decimals = value.partition(".")[2]
        if decimals.endswith("0"):
            cell.number_format = f"0.{'0' * len(decimals)}"
        return cell

    made = [number if one else text for one in is_numeric]
    rows, sheet = _rows(table), new_sheet()
    next(rows)
    for count, row in enumerate(rows):
        if count and count % (SHEET_ROWS - 1) == 0:
            sheet = new_sheet()
        sheet.append(
            [make(sheet, cell) if cell else None for make, cell in zip(made, row, strict=True)]
        )
    book.save(target)


def _rows(table: TextIO) -> Iterator[list[str]]:
    """Read a CSV file from its start, as a person would see its cells."""
    table.seek(0)
    for row in csv.reader(table):
        yield [cell[1:] if _ESCAPED.match(cell) else cell for cell in row]


def _is_number(cell: str) -> bool:
    digits = cell.partition("e")[0].lstrip("-0.").replace(".", "")
    return len(digits) <= _DIGITS and _NUMBER.fullmatch(cell) is not None
