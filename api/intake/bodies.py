"""Request bodies as items: JSON, multipart, CSV and NDJSON, read in a thread as they stream in."""

import csv
import io
import json
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import BinaryIO, Protocol
from urllib.parse import unquote

from anyio import from_thread
from fastapi import Request
from pydantic import ValidationError
from starlette.datastructures import UploadFile

from api.schemas import ItemIn, JobIn, JobOptions
from worker.jobs.errors import (
    LISTED_PROBLEMS,
    BodyUnreadable,
    ItemProblem,
    ItemsRefused,
    JobRefused,
    describe,
)
from worker.jobs.items import ItemSpec
from worker.jobs.record import CsvShape

JSON, FORM = "application/json", "multipart/form-data"
CSV, NDJSON = "text/csv", "application/x-ndjson"
CONTENT_TYPES = (JSON, FORM, CSV, NDJSON)
READ_BYTES = 1 << 18
MAX_LINE_CHARS = 100_000
_ENCODED = re.compile("%(22|0A|0D)")


class Sink(Protocol):
    """Where items go as they are read; `count` is how many came."""

    count: int

    def add(self, spec: ItemSpec, payload: bytes | None = None, line: int | None = None) -> None:
        """Take the next item, which came in this line of the body if it has lines."""

    def refuse(self, detail: str, item_id: str | None = None) -> None:
        """Count the next item as unfit."""

    def shaped(self, csv: CsvShape) -> None:
        """Note how the table is laid out that the items come from."""


class BodyStream(io.RawIOBase):
    """A request's body as a file, for a thread started by the event loop that receives it."""

    def __init__(self, request: Request) -> None:
        self._chunks: AsyncIterator[bytes] = request.stream()
        self._rest = b""

    def readable(self) -> bool:
        """Say yes."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Fill `buffer` with what has come, waiting for at least a byte of it."""
        if not self._rest:
            self._rest = from_thread.run(self._receive)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    async def _receive(self) -> bytes:
        """Give the next bytes, none at the end."""
        async for chunk in self._chunks:
            if chunk:
                return chunk
        return b""


def content_type(request: Request) -> str:
    """Give the media type of a request's body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def read_json(body: bytes) -> JobIn:
    """Read a JSON submission; its items are handed on by `add_json_items`.

    Raises:
        JobRefused: it is not one; items of the wrong form are named by their row.
    """
    try:
        return JobIn.model_validate_json(body)
    except ValidationError as error:
        found = error.errors()
    problems = []
    for problem in found:
        match problem["loc"]:
            case ("items" | "urls", int(index), *rest):
                where = "".join(f"{part}: " for part in rest)
                problems.append(ItemProblem(index, None, f"{where}{problem['msg']}"))
    if problems:
        raise ItemsRefused(problems[:LISTED_PROBLEMS], len(problems))
    if found[0]["type"] == "json_invalid":
        raise BodyUnreadable(f"the body is not JSON: {found[0]['msg']}")
    raise JobRefused(describe(found))


def add_json_items(job: JobIn, sink: Sink) -> None:
    """Hand on the items of a JSON submission.

    Raises:
        JobRefused: it has both urls and items, or neither.
    """
    if (job.urls is None) == (job.items is None):
        raise JobRefused("give either urls or items")
    for url in job.urls or ():
        sink.add(ItemSpec(str(sink.count), url))
    for item in job.items or ():
        _add(item, sink)


def file_name(file: UploadFile) -> str:
    """Give the name of an uploaded file as its sender has it, empty if it has none.

    Browsers, curl and Python's clients write quotes and line breaks in it percent-encoded, as the
    HTML standard has it, and no other character.
    """
    return _ENCODED.sub(lambda found: unquote(found[0]), file.filename or "")


def add_files(files: Sequence[tuple[str, BinaryIO]], max_bytes: int, sink: Sink) -> None:
    """Hand on uploaded files, given by name; the name is the item's id."""
    for name, file in files:
        sink.add(ItemSpec(name, filename=name), file.read(max_bytes + 1))


def add_csv_items(stream: io.RawIOBase, params: Mapping[str, str], sink: Sink) -> None:
    """Hand on the rows of a CSV with a header; `params` name its `url_column` and `id_column`.

    Raises:
        JobRefused: a column is missing, or the text cannot be read as CSV.
    """
    text = io.TextIOWrapper(io.BufferedReader(stream, READ_BYTES), "utf-8-sig", newline="")
    url_column, id_column = params.get("url_column", "url"), params.get("id_column")
    rows = csv.reader(text, strict=True)
    read_to = 0  # the last line of the last row that was read
    try:
        header = next(rows, [])
        read_to = rows.line_num
        _check_header(header, url_column, id_column)
        sink.shaped(CsvShape(tuple(header), url_column, id_column))
        url_at, id_at = header.index(url_column), header.index(id_column) if id_column else None
        others = [at for at, name in enumerate(header) if name not in (url_column, id_column)]
        for row in rows:
            read_to = rows.line_num
            if not row:
                continue
            if len(row) != len(header):
                sink.refuse(
                    f"line {rows.line_num} has {len(row)} cells and the header {len(header)}"
                )
                continue
            item_id = str(sink.count) if id_at is None else row[id_at]
            if not item_id:
                sink.refuse(f"line {rows.line_num} has no {id_column}")
                continue
            columns = {header[at]: row[at] for at in others} or None
            sink.add(ItemSpec(item_id, row[url_at], columns=columns), line=rows.line_num)
    except UnicodeDecodeError as error:
        raise BodyUnreadable(
            f"not UTF-8 after line {rows.line_num} ({error.reason}): save it as UTF-8"
        ) from None
    except csv.Error as error:
        raise BodyUnreadable(
            f"the row that begins at line {read_to + 1} is not CSV ({error}): a cell that holds a "
            "quotation mark must be quoted as a whole, with that mark written twice"
        ) from None


def _check_header(header: Sequence[str], url_column: str, id_column: str | None) -> None:
    if len(set(header)) != len(header):
        raise JobRefused("the header names a column twice: column names must differ")
    for parameter, column in (("url_column", url_column), ("id_column", id_column)):
        if column is not None and column not in header:
            raise JobRefused(
                f"there is no column {column!r}: the header has {', '.join(header) or 'nothing'}; "
                f"name the right one with ?{parameter}="
            )


def add_ndjson_items(stream: io.RawIOBase, sink: Sink) -> None:
    """Hand on the items of NDJSON, one a line.

    Raises:
        BodyUnreadable: a line is too long to be an item.
    """
    lines = io.BufferedReader(stream, READ_BYTES)
    for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_CHARS), b""), start=1):
        if len(line) == MAX_LINE_CHARS:
            raise BodyUnreadable(f"line {number} is longer than {MAX_LINE_CHARS} bytes")
        if not line.strip():
            continue
        try:
            item = ItemIn.model_validate_json(line)
        except ValidationError as error:
            sink.refuse(f"line {number}: {describe(error.errors())}")
        else:
            _add(item, sink, number)


def options_from_query(params: Mapping[str, str]) -> JobOptions:
    """Read the options of a CSV or NDJSON submission, which are query parameters.

    Raises:
        JobRefused: an option is unknown or does not fit.
    """
    fields: dict[str, object] = {
        name: value for name, value in params.items() if name not in ("url_column", "id_column")
    }
    try:
        if "metadata" in params:
            fields["metadata"] = json.loads(params["metadata"])
        return JobOptions.model_validate(fields)
    except json.JSONDecodeError as error:
        raise JobRefused(f"metadata: not JSON: {error}") from None
    except ValidationError as error:
        raise JobRefused(describe(error.errors())) from None


def form_parts(
    items: Sequence[tuple[str, UploadFile | str]],
) -> tuple[JobOptions, list[UploadFile]]:
    """Sort the parts of a form into options and files.

    Raises:
        JobRefused: a part is neither, or the options do not fit.
    """
    options, files = JobOptions(), []
    for name, value in items:
        if name == "files" and isinstance(value, UploadFile):
            files.append(value)
        elif name == "options" and isinstance(value, str):
            try:
                options = JobOptions.model_validate_json(value)
            except ValidationError as error:
                raise JobRefused(f"options: {describe(error.errors())}") from None
        else:
            raise JobRefused(
                f"the form has a part {name!r}: send pictures as files named `files` and the "
                "options as JSON in a field named `options`"
            )
    return options, files


def _add(item: ItemIn, sink: Sink, line: int | None = None) -> None:
    item_id = str(sink.count) if item.id is None else item.id
    sink.add(ItemSpec(item_id, item.url, columns=item.columns), line=line)
