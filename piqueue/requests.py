"""Each request of the API: its path, its body and the type of its answer."""

import json
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import Any, Generic, Literal, Self, TypeVar

import msgspec

from piqueue.types import (
    Body,
    Columns,
    DraftItemsPage,
    DryRun,
    Filters,
    Item,
    Job,
    JobOptions,
    JobsPage,
    JobStatus,
    Limits,
    Model,
    ResultsFormat,
    ResultsPage,
)

READ_BYTES = 1 << 18
PAGE_ITEMS = 1000
_NDJSON = "application/x-ndjson"
_CSV = "text/csv"

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Request(Generic[Answer]):
    """A request. `body` gives the parts of its content; `more` holds arguments of httpx2."""

    answer: type[Answer]
    method: str
    path: str
    params: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments of httpx2, without the body."""
        return {"params": self.params, "headers": self.headers, **self.more}

    def at(self, cursor: str) -> Self:
        """The request for the page at `cursor`."""
        return replace(self, params={**self.params, "cursor": cursor})


MODELS = Request(list[Model], "GET", "/models")
LIMITS = Request(Limits, "GET", "/limits")


def submit_ndjson(lines: Path | Body, options: JobOptions | None) -> Request[Job]:
    return _table(Job, _NDJSON, lines, _fields(options))


def dry_run_ndjson(lines: Path | Body, options: JobOptions | None) -> Request[DryRun]:
    return _table(DryRun, _NDJSON, lines, {**_fields(options), "dry_run": True})


def submit_csv(table: Path | Body, options: JobOptions | None, columns: Columns) -> Request[Job]:
    return _table(Job, _CSV, table, {**_fields(options), **columns})


def dry_run_csv(
    table: Path | Body, options: JobOptions | None, columns: Columns
) -> Request[DryRun]:
    return _table(DryRun, _CSV, table, {**_fields(options), **columns, "dry_run": True})


def submit_files(pictures: Mapping[str, Path | bytes], options: JobOptions | None) -> Request[Job]:
    more = _files(pictures)
    if options:
        more["data"] = {"options": json.dumps(_fields(options))}
    return Request(Job, "POST", "/jobs", headers=_new_key(), more=more)


def open_draft(options: JobOptions | None) -> Request[Job]:
    return Request(Job, "POST", "/jobs", more={"json": {**_fields(options), "draft": True}})


def add_items(job_id: str, items: Iterable[Item]) -> Request[Job]:
    return Request(
        Job,
        "POST",
        f"/jobs/{job_id}/items",
        headers={"Content-Type": _NDJSON},
        more={"content": ndjson(items)},
    )


def add_files(job_id: str, pictures: Mapping[str, Path | bytes]) -> Request[Job]:
    return Request(Job, "POST", f"/jobs/{job_id}/items", more=_files(pictures))


def draft_items(job_id: str) -> Request[DraftItemsPage]:
    return Request(DraftItemsPage, "GET", f"/jobs/{job_id}/items")


def submit_draft(job_id: str) -> Request[Job]:
    return Request(Job, "POST", f"/jobs/{job_id}/submit")


def job(job_id: str, wait_s: float = 0) -> Request[Job]:
    return Request(Job, "GET", f"/jobs/{job_id}", {"wait": wait_s, "results": False})


def jobs(status: JobStatus | None) -> Request[JobsPage]:
    return Request(JobsPage, "GET", "/jobs", {} if status is None else {"status": status})


def results(job_id: str, filters: Filters) -> Request[ResultsPage]:
    params = {**filters, "format": "json", "limit": PAGE_ITEMS}
    return Request(ResultsPage, "GET", f"/jobs/{job_id}/results", params)


def download(job_id: str, results_format: ResultsFormat, filters: Filters) -> Request[None]:
    params = {**filters, "format": results_format}
    return Request(NoneType, "GET", f"/jobs/{job_id}/results", params)


def cancel(job_id: str) -> Request[Job]:
    return Request(Job, "POST", f"/jobs/{job_id}/cancel")


def retry(job_id: str, only: Literal["failed", "retryable"]) -> Request[Job]:
    more = {"json": {"only": only}}
    return Request(Job, "POST", f"/jobs/{job_id}/retry", headers=_new_key(), more=more)


def delete(job_id: str) -> Request[None]:
    return Request(NoneType, "DELETE", f"/jobs/{job_id}")


def ndjson(items: Iterable[Item]) -> bytes:
    """One item a line."""
    return msgspec.json.Encoder().encode_lines(list(items))


def _table(
    answer: type[Answer], content_type: str, table: Path | Body, params: Mapping[str, Any]
) -> Request[Answer]:
    if "metadata" in params:
        params = {**params, "metadata": json.dumps(params["metadata"])}
    return Request(
        answer,
        "POST",
        "/jobs",
        params,
        headers={"Content-Type": content_type, **_new_key()},
        body=(lambda: _parts(table)) if isinstance(table, Path) else table,
    )


def _files(pictures: Mapping[str, Path | bytes]) -> dict[str, Any]:
    return {
        "files": [
            ("files", (item_id, file if isinstance(file, bytes) else file.read_bytes()))
            for item_id, file in pictures.items()
        ]
    }


def _fields(options: JobOptions | None) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(options or JobOptions())
    return fields


def _new_key() -> dict[str, str]:
    return {"Idempotency-Key": uuid.uuid4().hex}


def _parts(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(READ_BYTES):
            yield part
