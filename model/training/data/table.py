"""Reads a table of pictures: a CSV in UTF-8, separated by commas, with a header."""

import csv
from pathlib import Path
from typing import Any


class TableUnreadable(ValueError):
    """A file that is no such table; the text names it and says what to do."""


def read_table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, Any]]]]:
    """The columns, and each row with the number of its line, where the header is 1.

    A row that is too short has None for what it lacks; what it has too much is under None.

    Raises:
        TableUnreadable: it is missing, empty, or written in another way.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            rows = [(reader.line_num, row) for row in reader]
            columns = list(reader.fieldnames or ())
    except FileNotFoundError:
        raise TableUnreadable(f"{path}: there is no such table") from None
    except UnicodeDecodeError:
        raise TableUnreadable(f"{path} is not UTF-8: save it as CSV in UTF-8") from None
    except (OSError, csv.Error) as error:
        raise TableUnreadable(f"{path} cannot be read as CSV: {error}") from error
    if not columns:
        raise TableUnreadable(f"{path} is empty")
    if len(columns) == 1 and set(columns[0]) & set(";\t"):
        raise TableUnreadable(f"{path} is separated by semicolons or tabs: save it with commas")
    if len(set(columns)) < len(columns):
        raise TableUnreadable(f"{path} has two columns of one name: {', '.join(columns)}")
    return columns, rows
