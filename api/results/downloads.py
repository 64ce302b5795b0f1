"""All results of a job as one stream of JSONL, CSV or Parquet, in constant memory."""

import csv
import hashlib
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from importlib.metadata import version as version_of
from itertools import islice
from typing import Any

from api.formats import Format
from api.results.embeddings import Embeddings
from api.results.selection import ResultsQuery, ResultView
from api.results.table import Table, free_names
from worker.jobs.errors import FormatUnavailable
from worker.jobs.record import Job, NumberKind
from worker.jobs.results import ResultOut

_SERVER = version_of("piqueue-server")
BLOCK_ROWS = 500
ROW_GROUP_ROWS = 5000
# With embeddings, which take 5 kB a row and column.
EMBEDDED_ROWS = 500
LABEL_SEPARATOR = ";"
# A spreadsheet evaluates a cell that begins with one of these, unless it is a plain number. Some
# also evaluate their full-width forms, and ignore invisible characters before them.
_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")
_NUMBER = re.compile(r"[+-]([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]+)?%?")


def version(line: Sequence[Job], form: Format, query: ResultsQuery) -> str | None:
    """Return the tag of a download, which is made of the same bytes each time.

    None if a job is not done, and for Parquet, whose bytes depend on the libraries of the server.
    """
    if form is Format.PARQUET or not all(job.status.done for job in line):
        return None
    jobs = [(job.id, job.finished_ms) for job in line]
    made = (_SERVER, jobs, form, query.model_dump(exclude={"offset", "format"}))
    return f'"{hashlib.sha256(repr(made).encode()).hexdigest()[:32]}"'


def rest(blocks: Iterator[bytes], offset: int) -> Iterator[bytes]:
    """Leave out the first `offset` bytes.

    Blocks are left out one at a time, so that other downloads get their turn.
    """
    for block in blocks:
        yield block[offset:]
        offset = max(0, offset - len(block))


def jsonl(results: Iterator[ResultView]) -> Iterator[bytes]:
    """Write each result as a line of JSON, as on a page."""
    while block := list(islice(results, BLOCK_ROWS)):
        lines = (ResultOut.of(*view).model_dump_json(exclude_unset=True) for view in block)
        yield "".join(f"{line}\n" for line in lines).encode()


def csv_table(table: Table, results: Iterator[ResultView]) -> Iterator[bytes]:
    """Write a table as CSV (RFC 4180, UTF-8); the header is sent before any result is read."""
    text = io.StringIO()
    rows = csv.writer(text)
    rows.writerow(_escape(table.header))
    labels_at = len(table.header) - 3
    while text.tell():
        yield text.getvalue().encode()
        text.seek(0)
        text.truncate()
        for view in islice(results, BLOCK_ROWS):
            row = table.cells(view)
            row[: table.input_count] = _escape(row[: table.input_count])
            row[labels_at] = LABEL_SEPARATOR.join(row[labels_at] or ())
            row[-1:] = _escape(row[-1:])
            rows.writerow(row)


def _escape(cells: Iterable[str | None]) -> list[str | None]:
    """Prefix each cell that a spreadsheet would evaluate with an apostrophe."""
    return [f"'{cell}" if cell and _is_formula(cell) else cell for cell in cells]


def _is_formula(cell: str) -> bool:
    # Format characters (Cf) are invisible.
    visible = (sign for sign in cell if sign != "\0" and unicodedata.category(sign) != "Cf")
    first = unicodedata.normalize("NFKC", next(visible, ""))
    return first.startswith(_FORMULA_STARTS) and not _NUMBER.fullmatch(cell)


def parquet(
    table: Table, results: Iterator[ResultView], embeddings: Embeddings | None = None
) -> Iterator[bytes]:
    """Write a table as Parquet, a row group at a time; `embeddings` are its last columns.

    A submitted column of numbers has the type int64 or double, and null for an empty cell.

    Raises:
        FormatUnavailable: pyarrow is not installed; it is imported at the first use.
    """
    try:
        import pyarrow
        from pyarrow.parquet import ParquetWriter
    except ImportError:
        raise FormatUnavailable(
            "Parquet needs pyarrow, which is not installed on the server: ask its operator to "
            "install piqueue-server[parquet], or request csv or jsonl"
        ) from None
    text, number, labels = pyarrow.string(), pyarrow.float64(), pyarrow.list_(pyarrow.string())
    given = {None: text, NumberKind.INTEGER: pyarrow.int64(), NumberKind.DECIMAL: number}
    inputs = [given[kind] for kind in table.input_kinds]
    scores = [number if is_number else text for _, is_number in table.scores]
    kinds = [*inputs, text, *scores, labels, text, text]
    names = [*table.header]
    if embeddings is not None:
        names += free_names(embeddings.columns, names)
        kinds += embeddings.kinds(len(embeddings.columns))
    schema = pyarrow.schema(list(zip(names, kinds, strict=True)))
    group_rows = ROW_GROUP_ROWS if embeddings is None else EMBEDDED_ROWS

    def blocks() -> Iterator[bytes]:
        buffer = io.BytesIO()
        with ParquetWriter(buffer, schema) as writer:
            while group := list(islice(results, group_rows)):
                columns: list[Any] = list(zip(*map(table.cells, group), strict=True))
                for at, kind in enumerate(table.input_kinds):
                    if kind is not None:
                        columns[at] = [kind.read(cell) if cell else None for cell in columns[at]]
                if embeddings is not None:
                    columns += embeddings.arrays(group)
                writer.write_batch(pyarrow.record_batch(columns, schema=schema))
                yield _drain(buffer)
        yield _drain(buffer)

    return blocks()


def _drain(buffer: io.BytesIO) -> bytes:
    """Return what was written since the last call."""
    written = buffer.getvalue()
    buffer.seek(0)
    buffer.truncate()
    return written
