"""Reads request bodies as items: JSON, multipart and NDJSON."""

import json
import re
from codecs import BOM_UTF8, BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import IO, Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from api.intake.forms import Part
from api.intake.items import ItemReceiver
from api.intake.received import receive_body
from api.schemas import ItemIn, JobIn, JobOptions
from worker.jobs.errors import BodyUnreadable, JobRefused, TooLarge, UnsupportedBody, describe
from worker.jobs.items import ItemSpec

JSON, FORM = "application/json", "multipart/form-data"
CSV, NDJSON = "text/csv", "application/x-ndjson"
CONTENT_TYPES = (JSON, FORM, CSV, NDJSON)
MAX_LINE_CHARS = 100_000
# Lists and objects of a JSON body, which is read in one step that delays all other requests.
MAX_JSON_PARTS = 200_000
MAX_OPTIONS_BYTES = 1 << 20
# In one item, or in the options of one job.
MAX_MISTAKES = 100
_PAGE = re.compile(rb"(\xef\xbb\xbf)?\s*<(!doctype|html|\?xml)", re.IGNORECASE)

_Model = TypeVar("_Model", bound=BaseModel)


def content_type(request: Request) -> str:
    """Return the media type of a request's body, without its parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True)
class JsonBody:
    """A JSON submission; `items` or `urls` are its items, each of which is checked when added."""

    options: JobOptions
    draft: bool
    urls: list[Any] | None
    items: list[Any] | None


def refuse_other_kinds(body: bytes) -> None:
    """Raise BodyUnreadable if a body is compressed, a web page or UTF-16, as Excel writes it."""
    if body.startswith(b"\x1f\x8b"):
        raise BodyUnreadable("the body is gzip-compressed: send it unpacked")
    if body.startswith(b"PK\x03\x04"):
        raise BodyUnreadable("the body is a zip archive or an Excel workbook: send it as text")
    if _PAGE.match(body):
        raise BodyUnreadable("the body is an HTML or XML page: send the table or list itself")
    if body.startswith((BOM_UTF16_LE, BOM_UTF16_BE)) or b"\0" in body[:4]:
        raise BodyUnreadable("the body is UTF-16: save it as UTF-8")


def refuse_repeated_names(text: bytes | str) -> None:
    """Raise ValueError if a JSON object has a name twice, of which only the last would count."""
    json.loads(text, object_pairs_hook=_once)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for name, value in pairs:
        if name in fields:
            raise ValueError(f"an object has the name {name!r} twice: remove one of the two")
        fields[name] = value
    return fields


def read_json(file: IO[bytes]) -> JsonBody:
    """Read a JSON submission; `add_json` reads its items.

    Raises:
        JobRefused: it is no JSON, or does not fit the schema.
        TooLarge: it has too many lists and objects.
    """
    fields = _read_fields(file.read())
    lists = {}
    if isinstance(fields, dict):
        lists = {name: fields.pop(name) for name in ("urls", "items") if name in fields}
    # Items are validated one by one, so that no large body blocks the process meanwhile.
    job = _validated(JobIn, fields)
    for name, value in lists.items():
        if value is not None and not isinstance(value, list):
            raise JobRefused(f"{name}: give a list")
        if value and job.draft:
            raise JobRefused(
                f"{name}: a draft begins without items: send them to /jobs/{{id}}/items, or leave "
                "out draft"
            )
    return JsonBody(job.options, job.draft, lists.get("urls"), lists.get("items"))


async def read_object(request: Request, model: type[_Model]) -> _Model:
    """Read the JSON object of a request that has no items; without a body it is an empty object.

    Raises:
        UnsupportedBody: the body is not declared as JSON.
        JobRefused: it is no JSON, or does not fit the model.
        TooLarge: it has more than MAX_OPTIONS_BYTES.
    """
    async with receive_body(request, MAX_OPTIONS_BYTES) as received:
        body = received.rewound().read()
    if not body.strip():
        return _validated(model, {})
    if (kind := content_type(request)) != JSON:
        raise UnsupportedBody(f"the content type is {kind or 'missing'}: send {JSON}")
    return _validated(model, _read_fields(body))


def _read_fields(body: bytes) -> Any:
    if not body:
        raise BodyUnreadable(
            "the body is empty: send JSON, and its length as Content-Length or in chunks"
        )
    refuse_other_kinds(body)
    body = body.removeprefix(BOM_UTF8)
    if body.count(b"[") + body.count(b"{") > MAX_JSON_PARTS:
        raise TooLarge(
            f"the JSON body has more than {MAX_JSON_PARTS} lists and objects: send NDJSON instead"
        )
    if problem := not_utf8(body):
        raise BodyUnreadable(problem)
    try:
        fields = from_json(body)
    except ValueError as error:
        raise BodyUnreadable(f"the body is not JSON ({error}): correct it there") from None
    if isinstance(fields, dict) and len(fields) > MAX_MISTAKES:
        raise JobRefused(_too_many_mistakes(len(fields)))
    try:
        refuse_repeated_names(body)
    except ValueError as error:
        raise JobRefused(str(error)) from None
    return fields


def _validated(model: type[_Model], fields: Any) -> _Model:
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        raise JobRefused(_mistakes(error)) from None


def add_json(job: JsonBody, items: ItemReceiver) -> None:
    """Add the items of a JSON submission.

    Raises:
        JobRefused: it has both urls and items, or neither.
    """
    if job.urls is None and job.items is None:
        raise JobRefused("the body has no pictures: give urls or items")
    if job.urls is not None and job.items is not None:
        raise JobRefused("give either urls or items, and not both")
    for url in job.urls or ():
        if isinstance(url, str):
            items.add(ItemSpec(items.default_id(), _trimmed(url)))
        else:
            items.add_problem("the URL must be a string, in quotes")
    for fields in job.items or ():
        try:
            item = ItemIn.model_validate(fields)
        except ValidationError as error:
            items.add_problem(_mistakes(error, "item"))
        else:
            _add(item, items)


def add_files(parts: Iterable[Part], items: ItemReceiver) -> None:
    """Add the files among the parts of a form; the id of an item is its name, if it has one."""
    for part in parts:
        if part.name == "files":
            item_id = part.filename or items.default_id()
            items.add(ItemSpec(item_id, filename=item_id), bytes(part.content))


def add_file(parts: Iterable[Part], items: ItemReceiver) -> None:
    """Add the file of a form with one file.

    Raises:
        JobRefused: there is none, or more than one, or something else.
    """
    files = []
    for part in parts:
        if part.name != "file":
            raise JobRefused(
                f"the form has a part {part.name!r}, which has no effect here: send one picture "
                "named `file`; to choose a model or other options, use POST /jobs"
            )
        if part.filename is not None:
            files.append(part)
    if len(files) != 1:
        raise JobRefused(
            f"the form has {len(files) or 'no'} files named `file`: send one picture under that "
            "name, with a file name"
        )
    name = files[0].filename or "file"
    items.add(ItemSpec(name, filename=name), bytes(files[0].content))


def add_ndjson(file: IO[bytes], items: ItemReceiver) -> None:
    """Add the items of NDJSON, one a line.

    Raises:
        BodyUnreadable: a line is too long to be an item.
    """
    for number, line in enumerate(iter(lambda: file.readline(MAX_LINE_CHARS), b""), start=1):
        if number == 1:
            refuse_other_kinds(line)
        line = line.removeprefix(BOM_UTF8)  # also of a file that was appended to another one
        if len(line) == MAX_LINE_CHARS:
            raise BodyUnreadable(
                f"line {number} is longer than {MAX_LINE_CHARS} bytes: send one item a line"
            )
        if not line.strip():
            continue
        try:
            item = ItemIn.model_validate_json(line)
            refuse_repeated_names(line)
        except ValidationError as error:
            items.add_problem(_line_problem(number, line, error))
        except ValueError as error:
            items.add_problem(f"line {number}: {error}")
        else:
            _add(item, items, number)


def _line_problem(number: int, line: bytes, error: ValidationError) -> str:
    """Say what is wrong with a line of NDJSON."""
    if problem := not_utf8(line, number):
        return problem
    if error.error_count() > 1 or (first := error.errors()[0])["type"] != "json_invalid":
        return f"line {number}: {_mistakes(error, 'item')}"
    if b"\r" in line.strip():
        return (
            f"line {number}: there is a CR, which ends no line: write each item on a line that "
            "ends with LF"
        )
    # Each item is a text of its own; its place in the body is the line.
    reason = re.sub(r" at line \d+ column ", " at column ", first["ctx"]["error"])
    return (
        f"line {number}: not JSON ({reason}): write each item on a line of its own, such as "
        '{"url": "https://…"}, without brackets or commas around it'
    )


def not_utf8(body: bytes, first_line: int = 1) -> str | None:
    """Return where a body has a byte that is not UTF-8, or None."""
    try:
        body.decode()
    except UnicodeDecodeError as error:
        before = body[: error.start]
        line, column = first_line + before.count(b"\n"), error.start - before.rfind(b"\n")
        return (
            f"line {line}, column {column}: the byte 0x{body[error.start]:02X} is not UTF-8: save "
            "or send the text as UTF-8"
        )
    return None


def options_from_query(params: Mapping[str, str]) -> JobOptions:
    """Read the options of a CSV or NDJSON submission, which are query parameters.

    Raises:
        JobRefused: an option is unknown or its value does not fit.
    """
    fields: dict[str, object] = dict(params)
    try:
        if "metadata" in params:
            # Unlike json.loads, it limits how deep the text is nested.
            fields["metadata"] = from_json(params["metadata"])
            refuse_repeated_names(params["metadata"])
        return JobOptions.model_validate(fields)
    except ValidationError as error:
        raise JobRefused(_mistakes(error)) from None
    except ValueError as error:
        raise JobRefused(f"the parameter metadata is not JSON ({error}): correct it") from None


def form_options(parts: Iterable[Part], max_files: int) -> JobOptions:
    """Read the options of a form, and check that its other parts are files.

    Raises:
        JobRefused: a part is neither, or the options do not fit their schema.
        TooLarge: it has too many files.
    """
    options: JobOptions | None = None
    file_count = 0
    for part in parts:
        if part.name == "options":  # which is a file if a browser sends a JSON Blob
            if options is not None:
                raise JobRefused("the form has two parts 'options': send one")
            options = _options(bytes(part.content).removeprefix(BOM_UTF8))
        elif part.name != "files":
            raise JobRefused(
                f"the form has a part {part.name!r}: send pictures as files named `files` and the "
                "options as JSON in a field named `options`"
            )
        elif part.filename is None:
            raise JobRefused(
                "the form has a part 'files' without a file name: send each picture as a file, "
                'with filename="…" in its Content-Disposition'
            )
        else:
            file_count += 1
    if file_count > max_files:
        raise TooLarge(
            f"the form has {file_count} files, and the limit is {max_files}: send the rest as "
            "another job, or add them to a draft"
        )
    return options or JobOptions()


def _options(text: bytes) -> JobOptions:
    try:
        options = JobOptions.model_validate_json(text)
        refuse_repeated_names(text)
    except ValidationError as error:
        raise JobRefused(f"options: {_mistakes(error)}") from None
    except ValueError as error:
        raise JobRefused(f"options: {error}") from None
    return options


def _add(item: ItemIn, items: ItemReceiver, line: int | None = None) -> None:
    item_id = items.default_id() if item.id is None else item.id
    items.add(ItemSpec(item_id, _trimmed(item.url), columns=item.columns), line=line)


def _mistakes(error: ValidationError, whole: str = "body") -> str:
    """Describe what is wrong; a list of hundreds of thousands would take seconds to make."""
    if (count := error.error_count()) > MAX_MISTAKES:
        return _too_many_mistakes(count, whole)
    return describe(error.errors(), whole)


def _too_many_mistakes(count: int, whole: str = "body") -> str:
    return f"{whole}: {count} fields are unknown or have a wrong value: see /openapi.json"


def _trimmed(url: str) -> str:
    """Remove the spaces around a URL; those of an S3 key are part of it."""
    return url if url.startswith("s3://") else url.strip()
