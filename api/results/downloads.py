"""All results of a job as one stream of JSONL, CSV or Parquet, in memory that does not grow."""

import csv
import io
import re
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from api.results.selection import Shown
from api.results.table import Table
from api.schemas import ResultOut
from worker.jobs.errors import FormatUnavailable

BLOCK_ROWS = 500
ROW_GROUP_ROWS = 5000
LABEL_SEPARATOR = ";"
# A spreadsheet runs a cell that begins so as a formula, unless it is a plain number.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(r"[+-]([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?%?")


def jsonl(results: Iterator[Shown]) -> Iterator[bytes]:
    """Write each result as a line of JSON, the same as on a page."""
    while block := list(islice(results, BLOCK_ROWS)):
        lines = (ResultOut.of(*shown).model_dump_json(exclude_unset=True) for shown in block)
        yield "".join(f"{line}\n" for line in lines).encode()


def csv_table(table: Table, results: Iterator[Shown]) -> Iterator[bytes]:
    """Write a table as CSV (RFC 4180, UTF-8), its first line at once."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(_harmless(table.header))
    labels_at = len(table.header) - 3
    while text.tell():
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
        for shown in islice(results, BLOCK_ROWS):
            row = table.cells(shown)
            row[: table.input_count] = _harmless(row[: table.input_count])
            row[labels_at] = LABEL_SEPARATOR.join(row[labels_at] or ())
            row[-1:] = _harmless(row[-1:])
            rows.writerow(row)


def _harmless(cells: Iterable[str | None]) -> list[str | None]:
    """Put a quotation mark before what a spreadsheet would run."""
    return [
        f"'{cell}"
        if cell and cell.startswith(_FORMULA_STARTS) and not _NUMBER.fullmatch(cell)
        else cell
        for cell in cells
    ]


def parquet(table: Table, results: Iterator[Shown]) -> Iterator[bytes]:
    """Write a table as Parquet, a row group at a time.

    Raises:
        FormatUnavailable: pyarrow is not installed; it is loaded at the first use.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetWriter
    except ImportError:
        raise FormatUnavailable(
            "Parquet needs pyarrow, which this API runs without: install piqueue[parquet] there, "
            "or ask for csv or jsonl"
        ) from None
    text, number, labels = pyarrow.string(), pyarrow.float64(), pyarrow.list_(pyarrow.string())
    scores = [number if is_number else text for _, is_number in table.scores]
    kinds = [*[text] * (table.input_count + 1), *scores, labels, text, text]
    schema = pyarrow.schema(list(zip(table.header, kinds, strict=True)))

    def blocks() -> Iterator[bytes]:
        sink = _Sink()
        with ParquetWriter(sink, schema) as writer:
            while group := [table.cells(shown) for shown in islice(results, ROW_GROUP_ROWS)]:
                columns: list[Any] = list(zip(*group, strict=True))
                arrays = [
                    pyarrow.array(column, kind) for column, kind in zip(columns, kinds, strict=True)
                ]
                writer.write_batch(pyarrow.record_batch(arrays, schema=schema))
                yield sink.take()
        yield sink.take()

    return blocks()


class _Sink(io.RawIOBase):
    """A file that is read away while it is written."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, part: Any) -> int:
        self._parts.append(bytes(part))
        return len(part)

    def take(self) -> bytes:
        """Give what was written since the last time."""
        taken = b"".join(self._parts)
        self._parts = []
        return taken
