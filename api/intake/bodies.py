"""Reads request bodies as items: JSON, multipart, CSV and NDJSON, in a thread as they arrive."""

import csv
import io
import re
from codecs import BOM_UTF8
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import BinaryIO
from urllib.parse import unquote

from anyio import from_thread
from fastapi import Request
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.datastructures import UploadFile

from api.intake.items import ItemReceiver, ProblemList
from api.schemas import ItemIn, JobIn, JobOptions
from worker.jobs.errors import BodyUnreadable, JobRefused, describe
from worker.jobs.items import ItemSpec
from worker.jobs.record import CsvShape

JSON, FORM = "application/json", "multipart/form-data"
CSV, NDJSON = "text/csv", "application/x-ndjson"
CONTENT_TYPES = (JSON, FORM, CSV, NDJSON)
READ_BYTES = 1 << 18
MAX_LINE_CHARS = 100_000
MAX_OPTIONS_BYTES = 1 << 20
_ENCODED = re.compile("%(22|0A|0D)")


class BodyStream(io.RawIOBase):
    """A request's body as a file, for a thread started by the event loop that receives it."""

    def __init__(self, request: Request) -> None:
        self._chunks: AsyncIterator[bytes] = request.stream()
        self._rest = b""

    def readable(self) -> bool:
        """Return True."""
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        """Read what has arrived into `buffer`, at least a byte; 0 at the end of the body."""
        if not self._rest:
            self._rest = from_thread.run(self._receive)
        size = min(len(buffer), len(self._rest))
        buffer[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    async def _receive(self) -> bytes:
        async for chunk in self._chunks:
            if chunk:
                return chunk
        return b""


def content_type(request: Request) -> str:
    """Return the media type of a request's body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def read_json(body: bytes) -> JobIn:
    """Read a JSON submission; `add_json` reads its items.

    Raises:
        JobRefused: it does not fit the schema; invalid items are listed by their index.
    """
    try:
        return JobIn.model_validate_json(body.removeprefix(BOM_UTF8))
    except ValidationError as error:
        found = error.errors()
    problems = ProblemList()
    for problem in found:
        match problem["loc"]:
            case ("items" | "urls", int(index), *rest):
                where = "".join(f"{part}: " for part in rest)
                problems.add(index, None, f"{where}{problem['msg']}")
    problems.check()
    if found[0]["type"] == "json_invalid":
        raise BodyUnreadable(f"the body is not JSON: {found[0]['msg']}")
    raise JobRefused(describe(found))


def add_json(job: JobIn, items: ItemReceiver) -> None:
    """Add the items of a JSON submission.

    Raises:
        JobRefused: it has both urls and items, or neither.
    """
    if (job.urls is None) == (job.items is None):
        raise JobRefused("give either urls or items, and not both")
    for url in job.urls or ():
        items.add(ItemSpec(items.default_id(), url))
    for item in job.items or ():
        _add(item, items)


def file_name(file: UploadFile) -> str:
    """Return the name of an uploaded file as its sender has it, empty if it has none.

    Browsers, curl and Python's clients percent-encode quotes and line breaks in it, as the HTML
    standard says, and no other character.
    """
    return _ENCODED.sub(lambda found: unquote(found[0]), file.filename or "")


def add_files(files: Sequence[tuple[str, BinaryIO]], max_bytes: int, items: ItemReceiver) -> None:
    """Add uploaded files; the id of an item is its name, if it has one."""
    for name, file in files:
        item_id = name or items.default_id()
        items.add(ItemSpec(item_id, filename=item_id), file.read(max_bytes + 1))


def add_csv(stream: io.RawIOBase, params: Mapping[str, str], items: ItemReceiver) -> None:
    """Add the rows of a CSV with a header; `params` name its `url_column` and `id_column`.

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
        items.csv = CsvShape(tuple(header), url_column, id_column)
        url_at, id_at = header.index(url_column), header.index(id_column) if id_column else None
        others = [at for at, name in enumerate(header) if name not in (url_column, id_column)]
        for row in rows:
            read_to = rows.line_num
            if not row:
                continue
            if len(row) != len(header):
                items.add_problem(
                    f"line {rows.line_num} has {len(row)} cells, but the header has {len(header)}"
                )
                continue
            item_id = items.default_id() if id_at is None else row[id_at]
            if id_at is not None and not item_id:
                items.add_problem(f"line {rows.line_num} has no {id_column}")
                continue
            columns = {header[at]: row[at] for at in others} or None
            items.add(ItemSpec(item_id, row[url_at], columns=columns), line=rows.line_num)
    except UnicodeDecodeError as error:
        raise BodyUnreadable(
            f"the body is not UTF-8 after line {rows.line_num} ({error.reason}): save it as UTF-8"
        ) from None
    except csv.Error as error:
        raise BodyUnreadable(
            f"the row that begins at line {read_to + 1} is not CSV ({error}): a cell that holds a "
            "quotation mark must be quoted as a whole, with that mark written twice"
        ) from None


def _check_header(header: Sequence[str], url_column: str, id_column: str | None) -> None:
    if len(set(header)) != len(header):
        raise JobRefused("the header has a column name twice: rename one of the two")
    for parameter, column in (("url_column", url_column), ("id_column", id_column)):
        if column is not None and column not in header:
            raise JobRefused(
                f"there is no column {column!r}: the header has {', '.join(header) or 'nothing'}; "
                f"give the name of the right one as ?{parameter}="
            )


def add_ndjson(stream: io.RawIOBase, items: ItemReceiver) -> None:
    """Add the items of NDJSON, one a line.

    Raises:
        BodyUnreadable: a line is too long to be an item.
    """
    lines = io.BufferedReader(stream, READ_BYTES)
    for number, line in enumerate(iter(lambda: lines.readline(MAX_LINE_CHARS), b""), start=1):
        if number == 1:
            line = line.removeprefix(BOM_UTF8)
        if len(line) == MAX_LINE_CHARS:
            raise BodyUnreadable(
                f"line {number} is longer than {MAX_LINE_CHARS} bytes: send one item a line"
            )
        if not line.strip():
            continue
        try:
            item = ItemIn.model_validate_json(line)
        except ValidationError as error:
            items.add_problem(f"line {number}: {describe(error.errors())}")
        else:
            _add(item, items, number)


def options_from_query(params: Mapping[str, str]) -> JobOptions:
    """Read the options of a CSV or NDJSON submission, which are query parameters.

    Raises:
        JobRefused: an option is unknown or its value does not fit.
    """
    fields: dict[str, object] = {
        name: value for name, value in params.items() if name not in ("url_column", "id_column")
    }
    try:
        if "metadata" in params:
            # Unlike json.loads, it limits how deep the text is nested.
            fields["metadata"] = from_json(params["metadata"])
        return JobOptions.model_validate(fields)
    except ValidationError as error:
        raise JobRefused(describe(error.errors())) from None
    except ValueError as error:
        raise JobRefused(f"the parameter metadata is not JSON: {error}") from None


def form_parts(
    parts: Sequence[tuple[str, UploadFile | str]],
) -> tuple[JobOptions, list[UploadFile]]:
    """Separate the options of a form from its files.

    Raises:
        JobRefused: a part is neither, or the options do not fit their schema.
    """
    options, files = JobOptions(), []
    for name, value in parts:
        if name == "files" and isinstance(value, UploadFile):
            files.append(value)
        elif name == "options":
            # Browsers send a JSON Blob as a file.
            text = value if isinstance(value, str) else value.file.read(MAX_OPTIONS_BYTES)
            try:
                options = JobOptions.model_validate_json(text)
            except ValidationError as error:
                raise JobRefused(f"options: {describe(error.errors())}") from None
        elif name == "files":
            raise JobRefused(
                "the form has a part 'files' without a file name: send each picture as a file, "
                'with filename="…" in its Content-Disposition'
            )
        else:
            raise JobRefused(
                f"the form has a part {name!r}: send pictures as files named `files` and the "
                "options as JSON in a field named `options`"
            )
    return options, files


def _add(item: ItemIn, items: ItemReceiver, line: int | None = None) -> None:
    item_id = items.default_id() if item.id is None else item.id
    items.add(ItemSpec(item_id, item.url, columns=item.columns), line=line)
