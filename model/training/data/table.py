"""Reads a table of pictures: a CSV file in UTF-8, separated by commas, with a header."""

import csv
from pathlib import Path
from typing import Any


class TableUnreadable(ValueError):
    """A file is not such a table; the message names it and says what to do."""


def read_table(path: Path) -> tuple[list[str], list[tuple[int, dict[str, Any]]]]:
    """The columns, and each row with its line number, where the header is line 1.

    A row that is too short has None for its missing cells; surplus cells are under the key None.

    Raises:
        TableUnreadable: the file is missing, empty, or has another format.
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
        raise TableUnreadable(f"{path} has two columns of the same name: {', '.join(columns)}")
    return columns, rows
