"""Reads CSV files of pictures, and replaces them safely while other processes may do so too."""

import csv
import fcntl
import io
import os
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from model.training.data.table import TableUnreadable, cells_problem, read_table
from piqueue.commands.terminal import CommandFailed, written_whole

Row = dict[str, str]


def read_rows(
    path: Path, columns: Sequence[str], payload: bytes | None = None
) -> tuple[list[str], list[Row]]:
    """The header and the rows of a CSV file in UTF-8 with at least `columns`.

    `payload` is the content of the file if it has been read before.

    Raises:
        CommandFailed: it cannot be read, lacks a column, or a row differs in length.
    """
    try:
        header, rows = read_table(path, payload)
    except TableUnreadable as error:
        raise CommandFailed(str(error)) from None
    missing = [column for column in columns if column not in header]
    if missing:
        raise CommandFailed(
            f"{path} has no column {', '.join(missing)}, only {', '.join(header)}: "
            "rename or add one"
        )
    for number, row in rows:
        if problem := cells_problem(row):
            raise CommandFailed(f"{path}, row {number}: {problem}")
    return header, [row for _, row in rows]


def csv_bytes(columns: Sequence[str], rows: Collection[Mapping[str, str]]) -> bytes:
    """A CSV file in UTF-8; cells that a row lacks are empty."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, restval="", extrasaction="ignore")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Admit one process of this machine at a time; the lock ends with its process.

    All links to the file have the same lock.
    """
    path = Path(os.path.realpath(path))
    with path.with_name(f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def replace_file(path: Path, payload: bytes) -> None:
    """Write a file completely or not at all, even if the machine loses power."""
    with written_whole(path) as file:
        file.write(payload)
        file.flush()
        os.fsync(file.fileno())
    folder = os.open(Path(os.path.realpath(path)).parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
