"""The requests of the API, each described once for both clients."""

import json
import re
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import wraps
from http import HTTPStatus
from pathlib import Path
from types import GenericAlias, NoneType
from typing import (
    Any,
    BinaryIO,
    Concatenate,
    Generic,
    Literal,
    ParamSpec,
    Protocol,
    Self,
    TypeVar,
    Unpack,
    get_args,
    overload,
)
from urllib.parse import quote

import httpx2
import msgspec

from piqueue.errors import PiqueueApiError
from piqueue.types import (
    Body,
    Columns,
    Draft,
    DraftItem,
    DraftItemsPage,
    DryRun,
    DuplicateGroup,
    DuplicatesPage,
    Filters,
    Item,
    Job,
    JobOptions,
    JobsPage,
    JobStatus,
    Limits,
    Model,
    Page,
    Result,
    ResultsFormat,
    ResultsPage,
    Similar,
)

READ_BYTES = 1 << 18
PAGE_ITEMS = 1000
_NDJSON = "application/x-ndjson"
_CSV = "text/csv"

_JOB_ID = re.compile(r"job_[0-9A-Za-z_]+")
# Other names of files have characters that forms escape, each client in its own way.
_PLAIN_NAME = re.compile(r'[^\x00-\x1f\x7f"%\\]*')

Answer = TypeVar("Answer")
_P = ParamSpec("_P")
_T = TypeVar("_T")


@dataclass(frozen=True)
class Request(Generic[Answer]):
    """A request. `body` gives the parts of its content; `files` are read for each attempt.

    `form_options` are sent with the files.
    """

    answer: type[Answer]
    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    files: Mapping[str, Path | bytes] = field(default_factory=dict)
    form_options: Mapping[str, Any] = field(default_factory=dict)
    more: Mapping[str, Any] = field(default_factory=dict)

    def arguments(self) -> dict[str, Any]:
        """Give the arguments of httpx2, without the body."""
        arguments = {"params": self.params, "headers": self.headers, **self.more}
        if self.files:
            boundary = uuid.uuid4().hex
            content_type = f"multipart/form-data; boundary={boundary}"
            arguments["headers"] = {**self.headers, "Content-Type": content_type}
            arguments["content"] = b"".join(self._form(boundary.encode()))
        return arguments

    def _form(self, boundary: bytes) -> Iterator[bytes]:
        parts = [(_disposition(name), file) for name, file in self.files.items()]
        if self.form_options:
            parts.insert(0, ('name="options"', json.dumps(self.form_options).encode()))
        for disposition, file in parts:
            yield b"--%b\r\nContent-Disposition: form-data; " % boundary
            yield f"{disposition}\r\n\r\n".encode()
            yield file if isinstance(file, bytes) else file.read_bytes()
            yield b"\r\n"
        yield b"--%b--\r\n" % boundary

    def at(self, cursor: str) -> Self:
        """The request for the page at `cursor`."""
        return replace(self, params={**self.params, "cursor": cursor})


class Blocking(Protocol):
    """Sends requests and returns their answers."""

    def _send(self, request: Request[Answer]) -> Answer: ...
    def _list(self, request: Request[Page[_T]]) -> Iterator[_T]: ...


class Awaiting(Protocol):
    """Sends requests and returns coroutines of their answers."""

    async def _send(self, request: Request[Answer]) -> Answer: ...
    def _list(self, request: Request[Page[_T]]) -> AsyncIterator[_T]: ...


class operation(Generic[_P, Answer]):  # noqa: N801 - a decorator, as property is
    """A method of both clients that sends the request which the decorated function returns."""

    def __init__(self, function: Callable[Concatenate[Any, _P], Request[Answer]]) -> None:
        self._function = function
        (answer,) = get_args(function.__annotations__["return"])
        function.__annotations__["return"] = answer  # for help() and other readers

    @overload
    def __get__(self, client: None, owner: Any) -> Callable[..., Any]: ...
    @overload
    def __get__(self, client: Blocking, owner: Any) -> Callable[_P, Answer]: ...
    @overload
    def __get__(
        self, client: Awaiting, owner: Any
    ) -> Callable[_P, Coroutine[Any, Any, Answer]]: ...
    def __get__(self, client: Any, owner: Any) -> Any:
        return _bound(self._function, client, "_send")


class listing(Generic[_P, _T]):  # noqa: N801
    """A method of both clients that gives what is on the pages of a list, one by one."""

    def __init__(self, function: Callable[Concatenate[Any, _P], Request[Page[_T]]]) -> None:
        self._function = function
        (page,) = get_args(function.__annotations__["return"])
        function.__annotations__["return"] = GenericAlias(Iterator, get_args(page))

    @overload
    def __get__(self, client: None, owner: Any) -> Callable[..., Any]: ...
    @overload
    def __get__(self, client: Blocking, owner: Any) -> Callable[_P, Iterator[_T]]: ...
    @overload
    def __get__(self, client: Awaiting, owner: Any) -> Callable[_P, AsyncIterator[_T]]: ...
    def __get__(self, client: Any, owner: Any) -> Any:
        return _bound(self._function, client, "_list")


class Operations:
    """The methods of both clients that send one request, or one for each page of a list.

    A submission with the `idempotency_key` of an earlier one of the last day gives the job of that
    one; it has to have the same items and options. Without a key, each call gets one of its own.
    """

    # Submitting.

    @operation
    def submit_urls(
        self,
        urls: Iterable[str],
        options: JobOptions | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Request[Job]:
        """Submit pictures by URL. The ids of the items are their indexes, "0", "1", ...

        Raises:
            PiqueueApiError: `items_refused` lists the invalid URLs; nothing is submitted.

        Example:
            client.submit_urls(["https://example.com/a.jpg"], JobOptions(model="scenes"))
        """
        body = ndjson(Item(url=url) for url in urls)
        return _table(Job, _NDJSON, lambda: [body], options, idempotency_key)

    @operation
    def submit_items(
        self,
        items: Iterable[Item],
        options: JobOptions | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Request[Job]:
        """Submit pictures by URL, with ids and columns of your own.

        Example:
            client.submit_items([Item(url=url, id=sku) for url, sku in rows])
        """
        body = ndjson(items)
        return _table(Job, _NDJSON, lambda: [body], options, idempotency_key)

    @operation
    def submit_ndjson(
        self,
        lines: Path | Body,
        options: JobOptions | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Request[Job]:
        """Submit items as JSON, one a line: a file, or a function that gives the parts of one."""
        return _table(Job, _NDJSON, lines, options, idempotency_key)

    @operation
    def submit_csv(
        self,
        table: Path | Body,
        options: JobOptions | None = None,
        *,
        idempotency_key: str | None = None,
        **columns: Unpack[Columns],
    ) -> Request[Job]:
        """Submit a CSV table: a file, or a function that gives the parts of one.

        The table is UTF-8 with commas and a header row. All columns are returned with the results.

        Example:
            client.submit_csv(Path("photos.csv"), url_column="image", id_column="sku")
        """
        return _table(Job, _CSV, table, options, idempotency_key, **columns)

    @operation
    def dry_run_ndjson(
        self, lines: Path | Body, options: JobOptions | None = None
    ) -> Request[DryRun]:
        """Check what `submit_ndjson` would submit, and fetch up to 50 URLs; nothing is stored."""
        return _table(DryRun, _NDJSON, lines, options, dry_run=True)

    @operation
    def dry_run_csv(
        self, table: Path | Body, options: JobOptions | None = None, **columns: Unpack[Columns]
    ) -> Request[DryRun]:
        """Check what `submit_csv` would submit, and fetch up to 50 URLs; nothing is stored."""
        return _table(DryRun, _CSV, table, options, **columns, dry_run=True)

    @operation
    def submit_files(
        self,
        pictures: Mapping[str, Path | bytes],
        options: JobOptions | None = None,
        *,
        idempotency_key: str | None = None,
    ) -> Request[Job]:
        """Submit files by id in one request, all or none. Use a draft for more than a thousand.

        Example:
            client.submit_files({"beach": Path("beach.jpg")})
        """
        fields = _fields(options)
        return Request(
            Job, "POST", "/jobs", headers=_key(idempotency_key), files=pictures, form_options=fields
        )

    # Drafts: items are added in parts, each once by its id, then submitted as a whole.

    @operation
    def open_draft(self, options: JobOptions | None = None) -> Request[Job]:
        """Create a job that accepts items until it is submitted.

        Example:
            draft = client.open_draft()
            client.add_files(draft.id, {"beach": Path("beach.jpg")})
            client.submit_draft(draft.id)
        """
        return Request(Job, "POST", "/jobs", more={"json": {**_fields(options), "draft": True}})

    @operation
    def add_items(self, job_id: str, items: Iterable[Item]) -> Request[Draft]:
        """Add pictures by URL to a draft; those without ids get the next numbers.

        If an answer is lost, the client sends the request again, and each item is added once. To
        call this again later with the same items, give them ids.

        Raises:
            PiqueueApiError: `items_refused` lists the refused items, such as those whose id another
                item of the draft has; the others are added.
        """
        headers = {"Content-Type": _NDJSON, **_key()}
        more = {"content": ndjson(items)}
        return Request(Draft, "POST", _job(job_id, "/items"), headers=headers, more=more)

    @operation
    def add_files(self, job_id: str, pictures: Mapping[str, Path | bytes]) -> Request[Draft]:
        """Add files by id to a draft. A file that the draft has already is not added again.

        Raises:
            PiqueueApiError: `items_refused` lists the refused files, such as those whose id another
                file of the draft has; the others are added.
        """
        return Request(Draft, "POST", _job(job_id, "/items"), files=pictures)

    @listing
    def _draft_items(self, job_id: str) -> Request[Page[DraftItem]]:
        return Request(DraftItemsPage, "GET", _job(job_id, "/items"))

    @operation
    def _submit_draft(self, job_id: str) -> Request[Job]:
        return Request(Job, "POST", _job(job_id, "/submit"))

    # Following and reading.

    @operation
    def models(self) -> Request[list[Model]]:
        """List the models that jobs may name."""
        return Request(list[Model], "GET", "/models")

    @operation
    def limits(self) -> Request[Limits]:
        """Read the limits of requests and jobs, and the use of the caller's quota."""
        return Request(Limits, "GET", "/limits")

    @operation
    def job(self, job_id: str, *, wait_s: float = 0) -> Request[Job]:
        """Read a job: now, or once it is done or `wait_s` seconds have passed.

        Raises:
            PiqueueApiError: `job_not_found`: there is no such job, or it has expired.
        """
        return Request(Job, "GET", _job(job_id), {"wait": wait_s, "results": False})

    @listing
    def jobs(self, status: JobStatus | None = None) -> Request[Page[Job]]:
        """List the jobs of the caller, newest first."""
        return Request(JobsPage, "GET", "/jobs", {"status": status} if status else {})

    @listing
    def results(self, job_id: str, **filters: Unpack[Filters]) -> Request[Page[Result]]:
        """Read the finished items in index order, also while the job runs.

        Example:
            for result in client.results(job.id, label="beach", threshold=0.9): ...
        """
        params = {**filters, "format": "json", "limit": PAGE_ITEMS}
        return Request(ResultsPage, "GET", _job(job_id, "/results"), params)

    # Acting.

    @operation
    def cancel(self, job_id: str) -> Request[Job]:
        """Stop a job; the results it has remain."""
        return Request(Job, "POST", _job(job_id, "/cancel"))

    @operation
    def retry(self, job_id: str, only: Literal["failed", "retryable"] = "failed") -> Request[Job]:
        """Submit the failed items of a job again, or the retryable ones; returns the new job."""
        more = {"json": {"only": only}}
        return Request(Job, "POST", _job(job_id, "/retry"), headers=_key(), more=more)

    @operation
    def rescore(self, job_id: str, *models: str, name: str | None = None) -> Request[Job]:
        """Score the kept features of a job with other models; returns the new job.

        Raises:
            PiqueueApiError: the job keeps no features, or those of another backbone.

        Example:
            client.rescore(job.id, "harbours")
        """
        more = {"json": {"models": models} | ({} if name is None else {"name": name})}
        return Request(Job, "POST", _job(job_id, "/rescore"), headers=_key(), more=more)

    # What is alike, in jobs that keep features; the first request waits for the comparison.

    @operation
    def similar(self, job_id: str, index: int, limit: int = 20) -> Request[list[Similar]]:
        """Give the pictures of a finished job that are most similar to the one at `index`.

        Raises:
            PiqueueApiError: `features_not_kept`: the job was submitted without `keep_features`.
                `item_not_found`: there is no such picture, or it failed.

        Example:
            for other in client.similar(job.id, 0): print(other.id, other.similarity)
        """
        params = {"item": index, "limit": limit}
        return Request(list[Similar], "GET", _job(job_id, "/similar"), params)

    @listing
    def duplicates(self, job_id: str) -> Request[Page[DuplicateGroup]]:
        """Give the groups of pictures of a finished job that are nearly the same, largest first.

        Raises:
            PiqueueApiError: `features_not_kept`: the job was submitted without `keep_features`.
        """
        return Request(DuplicatesPage, "GET", _job(job_id, "/duplicates"), {"limit": 100})

    @operation
    def delete(self, job_id: str) -> Request[None]:
        """Stop a job and erase it with its pictures and results."""
        return Request(NoneType, "DELETE", _job(job_id))


def _job(job_id: str, below: str = "") -> str:
    if not _JOB_ID.fullmatch(job_id):
        detail = f"{job_id!r} is no job id: give one like job_01J9ZC…, as `piqueue jobs` lists them"
        raise PiqueueApiError("job_id_invalid", detail)
    return f"/jobs/{job_id}{below}"


class Download:
    """A download to `target`.

    One that `resumes` goes on where it broke, if the API gave it a tag.
    """

    def __init__(self, request: Request[None], target: BinaryIO, *, resumes: bool = False) -> None:
        self._request = request
        self._target = target
        self._resumes = resumes
        self._tag: str | None = None
        self._start = 0

    @classmethod
    def of_results(
        cls, job_id: str, target: BinaryIO, results_format: ResultsFormat, filters: Filters
    ) -> Self:
        """The download of the results of a job."""
        params = {**filters, "format": results_format}
        return cls(Request(NoneType, "GET", _job(job_id, "/results"), params), target, resumes=True)

    @classmethod
    def of_report(cls, job_id: str, target: BinaryIO, merge: Literal["parents"] | None) -> Self:
        """The download of the report of a job."""
        params = {"merge": merge} if merge else {}
        return cls(Request(NoneType, "GET", _job(job_id, "/report"), params), target)

    def request(self) -> Request[None]:
        """The request for what is missing."""
        if self._tag is None:
            self._target.seek(0)
            self._target.truncate()
            return self._request
        self._start = self._target.tell()
        params = {**self._request.params, "offset": self._start}
        return replace(self._request, params=params, headers={"If-Match": self._tag})

    def answered(self, response: httpx2.Response) -> None:
        """Note the tag of the results; if they have changed, all are missing."""
        if response.is_success:
            self._tag = response.headers.get("etag") if self._resumes else None
        elif response.status_code == HTTPStatus.PRECONDITION_FAILED:
            self._tag = None

    def write(self, part: bytes) -> None:
        """Add the next part of the answer."""
        self._target.write(part)

    @property
    def advanced(self) -> bool:
        """Whether the latest request brought bytes that need not be sent again."""
        return self._tag is not None and self._target.tell() > self._start


def ndjson(items: Iterable[Item]) -> bytes:
    """One item a line."""
    return msgspec.json.Encoder().encode_lines(list(items))


def _bound(function: Callable[..., Any], client: Any, send: str) -> Callable[..., Any]:
    if client is None:
        return function
    method = function.__get__(client)

    @wraps(method)
    def call(*arguments: Any, **named: Any) -> Any:
        return getattr(client, send)(method(*arguments, **named))

    return call


def _table(
    answer: type[Answer],
    content_type: str,
    table: Path | Body,
    options: JobOptions | None,
    idempotency_key: str | None = None,
    **params: Any,
) -> Request[Answer]:
    params = {**_fields(options), **params}
    if "metadata" in params:
        params["metadata"] = json.dumps(params["metadata"])
    if "models" in params:
        params["models"] = ",".join(params["models"])
    headers = {"Content-Type": content_type, **_key(idempotency_key)}
    body = (lambda: _parts(table)) if isinstance(table, Path) else table
    return Request(answer, "POST", "/jobs", params, headers, body)


def _fields(options: JobOptions | None) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(options or JobOptions())
    return fields


def _disposition(name: str) -> str:
    """Name a file of a form so that every character of it arrives."""
    if _PLAIN_NAME.fullmatch(name):
        return f'name="files"; filename="{name}"'
    return f'name="files"; filename="-"; filename*=UTF-8\'\'{quote(name, safe="")}'


def _key(given: str | None = None) -> dict[str, str]:
    return {"Idempotency-Key": given or uuid.uuid4().hex}


def _parts(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(READ_BYTES):
            yield part
