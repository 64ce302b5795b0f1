"""Reads a CSV body as items, also as spreadsheets write it."""

import csv
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from itertools import chain, islice
from typing import IO

from api.intake.bodies import refuse_other_kinds
from api.intake.items import ItemReceiver
from worker.jobs.errors import BodyUnreadable, JobRefused, shortened
from worker.jobs.items import ItemSpec
from worker.jobs.record import CsvShape

# The parameters of `add_csv`.
COLUMN_PARAMETERS = ("url_column", "id_column")
SHOWN_CHARS = 40
LISTED_CHARS = 400
# Far more than the columns of an item may have.
MAX_ROW_CHARS = 1_000_000
# So many rows below the first one, which may be a title, are searched for the header.
TITLE_ROWS = 5
_SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "vertical bars"}
# The first line of a table that Excel is to read, such as sep=;
_SEP_LINE = re.compile(r'"?sep=(.)"?,*\s*', re.IGNORECASE)
# No header begins so.
_JSON = re.compile(r'\ufeff?\s*[\[{]\s*["{]')
_LINE_BREAK = re.compile(r"\r\n?|\n")
# How `surrogateescape` writes bytes that are not UTF-8.
_BAD_BYTE = re.compile("[\udc80-\udcff]")


def add_csv(file: IO[bytes], params: Mapping[str, str], items: ItemReceiver) -> None:
    """Add the rows of a CSV with a header; `params` name its `url_column` and `id_column`.

    Empty rows, columns at the end that are empty, and spaces around names and URLs are left out.

    Raises:
        JobRefused: a column is missing, or the text cannot be read as CSV.
    """
    text = io.TextIOWrapper(file, "utf-8-sig", "surrogateescape", newline="")
    url_column, id_column = params.get("url_column", "url").strip(), params.get("id_column")
    rows = _rows(text, url_column)
    first = next(rows, None)
    if first is None:
        raise BodyUnreadable("the table is empty: send a header and a row for each picture")
    if url_column not in map(str.strip, first[1]):
        _refuse_title(rows, url_column)
    header = _header(*first, url_column, id_column)
    items.csv = CsvShape(tuple(header), url_column, id_column)
    url_at, id_at = header.index(url_column), header.index(id_column) if id_column else None
    others = [at for at, name in enumerate(header) if name not in (url_column, id_column)]
    line = 0
    for line, row in rows:
        surplus = next((cell for cell in row[len(header) :] if cell.strip()), None)
        if surplus is not None or len(row) < len(header):
            advice = "add its empty cells" if surplus is None else _surplus_advice(surplus)
            items.add_problem(
                f"line {line}, {shown(','.join(row))}, has {len(row)} cells, but the header has "
                f"{len(header)}: {advice}"
            )
            continue
        item_id = items.default_id() if id_at is None else row[id_at]
        if id_at is not None and not item_id:
            items.add_problem(f"line {line}, column {id_column!r}: the id is empty: write one")
            continue
        columns = {header[at]: row[at] for at in others} or None
        spec = ItemSpec(item_id, row[url_at].strip(), columns=columns)
        items.add(spec, line=line, url_column=url_column)
    if not line:
        raise BodyUnreadable("the table has a header and no rows: add a row for each picture")


def _rows(text: io.TextIOWrapper, url_column: str) -> Iterator[tuple[int, list[str]]]:
    """Give the rows that are not empty, the header first, with the line at which each begins."""
    first = text.readline(MAX_ROW_CHARS)
    refuse_other_kinds(first.encode(errors="surrogateescape"))
    if _JSON.match(first):
        raise BodyUnreadable(
            "line 1: the body is JSON and not a table: send it as application/json, or as "
            "application/x-ndjson if each line is an item"
        )
    separator = ","
    if declared := _SEP_LINE.fullmatch(first):
        separator, first = declared[1], "\r\n"
    header: list[str] = []
    line, row_chars, last = 1, 0, ""

    def lines() -> Iterator[str]:
        """Give the lines, until those of one row are too long together."""
        nonlocal row_chars, last
        for text_line in chain([first], iter(partial(text.readline, MAX_ROW_CHARS), "")):
            row_chars += len(text_line)
            if row_chars >= MAX_ROW_CHARS:
                raise BodyUnreadable(
                    f"the row that begins at line {line} has more than {MAX_ROW_CHARS:,} "
                    "characters: shorten it, or close its quotation marks"
                )
            # A byte order mark within a table is that of a file that was appended to another one.
            last = text_line.removeprefix("\ufeff")
            yield last

    rows = csv.reader(lines(), delimiter=separator, strict=True)
    try:
        for row in rows:
            row_chars = 0
            joined = "".join(row)
            if joined and not joined.isspace():
                if not joined.isascii() and _BAD_BYTE.search(joined):
                    raise BodyUnreadable(_bad_byte(line, row, header))
                if not header:
                    refuse_other_kinds(joined.encode())
                    header = [name.strip() for name in row]
                if url_column in header and ("\n" in joined or "\r" in joined):
                    url_at = header.index(url_column)
                    column = _cell_of_rows(row, len(header), url_at, separator)
                    if column is not None:
                        raise BodyUnreadable(
                            f"line {line}, column {_title(header, column)}: the cell "
                            f"{shown(row[column])} holds whole rows: is a quotation mark at its "
                            "beginning not closed? Quote the cell, and write that mark twice"
                        )
                yield line, row
            line = rows.line_num + 1
    except csv.Error as error:
        if not header:
            _refuse_separator(line, last.strip(), url_column)
        where = f"the row that begins at line {line}"
        if "field limit" in str(error):
            detail = f"has a cell of more than {csv.field_size_limit():,} characters: shorten it"
            raise BodyUnreadable(f"{where} {detail}") from None
        raise BodyUnreadable(
            f"{where} is not CSV ({error}): a cell that holds a quotation mark must be quoted as a "
            "whole, with that mark written twice"
        ) from None


def _cell_of_rows(row: Sequence[str], width: int, url_at: int, separator: str) -> int | None:
    """Find a cell that holds rows, as one does that begins with a stray quotation mark."""
    for at, cell in enumerate(row):
        first, *others = (line.split(separator) for line in _LINE_BREAK.split(cell))
        if not others:
            continue
        *between, last = others
        if any(len(line) == width and "://" in line[url_at] for line in between):
            return at
        # The cells before this one belong to the first line, and those after it to the last.
        if at + len(first) == width == len(last) + len(row) - at - 1:
            url_in_first = row[url_at] if url_at < at else first[url_at - at]
            url_in_last = [*last, *row[at + 1 :]][url_at]
            if "://" in url_in_first and "://" in url_in_last:
                return at
    return None


def _header(line: int, row: Sequence[str], url_column: str, id_column: str | None) -> list[str]:
    """Give the names of the columns, without empty ones at the end.

    Raises:
        JobRefused: a name is missing or occurs twice, or the columns are not separated by commas.
    """
    header = [name.strip() for name in row]
    while header and not header[-1]:
        header.pop()
    _refuse_separator(line, ",".join(header), url_column)
    if url_column not in header and any("://" in name for name in header):
        raise JobRefused(
            f"line {line}: there is a URL instead of the header: write the names of the columns "
            f"above it, such as {url_column}"
        )
    first_at: dict[str, int] = {}
    for at, name in enumerate(header):
        if first_at.setdefault(name, at) != at:
            title = f"the column {name!r} is there twice" if name else "two columns have no name"
            raise JobRefused(
                f"line {line}: {title}, as columns {first_at[name] + 1} and {at + 1}: "
                "rename or remove one of the two"
            )
    for parameter, column in (("url_column", url_column), ("id_column", id_column)):
        if column is not None and column not in header:
            raise JobRefused(
                f"line {line}: there is no column {column!r}: the header has "
                f"{_listed(header) or 'nothing'}; give the name of the right one as ?{parameter}="
            )
    return header


def _refuse_title(rows: Iterator[tuple[int, list[str]]], url_column: str) -> None:
    """Raise JobRefused if the header is below other lines, such as a title."""
    below = islice(rows, TITLE_ROWS)
    try:
        line = next((line for line, row in below if url_column in map(str.strip, row)), None)
    except BodyUnreadable:
        return  # the first line is refused anyway
    if line is not None:
        raise JobRefused(
            f"line {line}: the header with {url_column!r} is there, below other lines: remove "
            "those above it"
        )


def _refuse_separator(line: int, text: str, url_column: str) -> None:
    """Raise JobRefused if a header has its columns separated by another character than a comma."""
    for separator, word in _SEPARATORS.items():
        names = [name.strip(' "') for name in text.split(separator)]
        is_one_name = "," not in text and len(names) > 1
        if is_one_name or url_column in names[1:] + names[:-1] or separator in url_column:
            raise JobRefused(
                f"line {line}: the columns are separated by {word} ({shown(text)}): save the table "
                "with commas"
            )


def _listed(names: Sequence[str]) -> str:
    text = ", ".join(name if name.isprintable() else repr(name) for name in names)
    return shortened(text, LISTED_CHARS)


def _title(header: Sequence[str], column: int) -> str:
    return repr(header[column]) if column < len(header) else str(column + 1)


def _bad_byte(line: int, row: Sequence[str], header: Sequence[str]) -> str:
    """Say where a row has a byte that is not UTF-8."""
    column = next(at for at, cell in enumerate(row) if _BAD_BYTE.search(cell))
    found = _BAD_BYTE.search(row[column])
    assert found
    before = "".join(row[:column]) + row[column][: found.start()]
    line += len(_LINE_BREAK.findall(before))
    title = _title(header, column)
    raw = row[column].encode(errors="surrogateescape")
    return (
        f"line {line}, column {title}: the byte 0x{ord(found[0]) - 0xDC00:02X} is not UTF-8 (as "
        f"Windows-1252 the cell is {shown(raw.decode('cp1252', 'replace'))}): save the table as "
        "UTF-8"
    )


def _surplus_advice(cell: str) -> str:
    return f"{shown(cell)} has no column; quote a cell that holds a comma"


def shown(text: str) -> str:
    """Quote the beginning of a text for a message."""
    return repr(shortened(text, SHOWN_CHARS))
