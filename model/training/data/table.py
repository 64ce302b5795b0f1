"""Reads a table of pictures: a CSV file in UTF-8, separated by commas, with a header."""

import csv
import io
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

YES = "yes"
GUESSED = "guessed"
"""Column of the labels that nobody has confirmed, separated by semicolons; `yes` for all labels."""
LEFT_OUT = "left_out"
"""Column that is `yes` for a picture that a person has left out."""


class TableUnreadable(ValueError):
    """A file is not such a table; the message names it and says what to do."""


def read_table(
    path: Path, payload: bytes | None = None
) -> tuple[list[str], list[tuple[int, dict[str, Any]]]]:
    """The columns, and each row with its line number, where the header is line 1.

    `payload` is the content of the file if it has been read before. A row that is too short has
    None for its missing cells; surplus cells are under the key None.

    Raises:
        TableUnreadable: the file is missing, empty, or has another format.
    """
    try:
        payload = path.read_bytes() if payload is None else payload
        text = io.StringIO(payload.decode("utf-8-sig"), newline="")
        reader = csv.DictReader(text, strict=True)
        rows = [(reader.line_num, row) for row in reader]
        columns = list(reader.fieldnames or ())
    except FileNotFoundError:
        raise TableUnreadable(f"{path} does not exist: give the path of a table") from None
    except UnicodeDecodeError as error:
        raise TableUnreadable(f"{path}{_bad_line(error)}: save it as CSV in UTF-8") from None
    except csv.Error as error:
        raise TableUnreadable(
            f"{path} cannot be read as CSV up to line {reader.line_num} ({error}): a cell that "
            "holds a quotation mark must be quoted as a whole, with that mark written twice"
        ) from error
    except OSError as error:
        raise TableUnreadable(
            f"{path} cannot be read ({error}): give a table that you may read"
        ) from error
    if not columns:
        raise TableUnreadable(f"{path} is empty: write a header and a row for each picture")
    if len(columns) == 1 and set(columns[0]) & set(";\t"):
        raise TableUnreadable(
            f"{path}, line 1: {columns[0]!r} is separated by semicolons or tabs: save it with "
            "commas"
        )
    if len(set(columns)) < len(columns):
        [(name, _)] = Counter(columns).most_common(1)
        raise TableUnreadable(
            f"{path}, line 1, has two columns of the same name, {name!r}: rename or remove one"
        )
    return columns, rows


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
