"""A small typed client of the HTTP API: submits pictures, follows jobs, reads their results."""

import json
import random
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self, TypedDict, TypeVar, Unpack
from urllib.parse import urlsplit

import httpx2
from pydantic import BaseModel, RootModel, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from api.schemas import (
    DraftItemsPage,
    DryRunOut,
    ItemIn,
    JobOptions,
    JobOut,
    JobsPage,
    LimitsOut,
    ModelCardOut,
    Problem,
    ResultOut,
    ResultsPage,
)
from api.urls import url_problem
from worker.jobs.record import JobStatus

Body = Callable[[], Iterable[bytes]]
ResultsFormat = Literal["csv", "jsonl", "parquet"]

READ_BYTES = 1 << 18
PAGE_ITEMS = 1000
FIRST_CONTACT_S = 10.0
_FIRST_PAUSE_S = 0.1
_LONGEST_PAUSE_S = 5.0
_PASSING = (
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
)
_LOOPBACK = ("127.0.0.1", "::1", "localhost")

_Answer = TypeVar("_Answer")
_Model = TypeVar("_Model", bound=BaseModel)


class Filters(TypedDict, total=False):
    """Which results, and which labels of them: all are looked at as the results are read."""

    status: Literal["succeeded", "failed"]
    label: str
    top_k: int
    threshold: float
    merge: Literal["parents"]


class PiqueueApiError(Exception):
    """The API refused a request, with `status` and `code`; or did not answer, with status None.

    `problems` lists the first of `problem_count` refused items, as index, id and detail.
    """

    def __init__(
        self,
        code: str,
        detail: str,
        status: int | None = None,
        problems: Iterable[Mapping[str, Any]] = (),
        problem_count: int = 0,
        retry_after_s: float | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.status = status
        self.problems = tuple(problems)
        self.problem_count = problem_count
        self.retry_after_s = retry_after_s

    @classmethod
    def of(cls, response: httpx2.Response) -> Self:
        """Read an answer that is not a success; whatever a proxy made up, it becomes an error."""
        wait = response.headers.get("retry-after", "")
        retry_after_s = float(wait) if wait.isdecimal() else None
        status = response.status_code
        try:
            problem = Problem.model_validate_json(response.content)
        except ValidationError:
            detail = f"the answer was {status} {response.reason_phrase}, and not from Piqueue"
            return cls("not_piqueue", detail, status, retry_after_s=retry_after_s)
        return cls(
            problem.code,
            problem.detail,
            status,
            problem.problems or (),
            problem.problem_count or 0,
            retry_after_s,
        )


class ClientSettings(BaseSettings):
    """Where the API is and who calls, from PIQUEUE_URL and PIQUEUE_API_KEY."""

    model_config = SettingsConfigDict(env_prefix="PIQUEUE_", extra="ignore")

    url: str = "http://127.0.0.1:8000"
    api_key: SecretStr | None = None


class _Models(RootModel[list[ModelCardOut]]):
    """The answer of GET /models."""


class Client:
    """The API at `url`, called with `api_key`; both come from the environment when left out.

    While the API is away or pushes back, a request is tried again for up to `patience_s`, or ten
    seconds at an address that never answered; `on_retry` is told the error and the pause. Nothing
    is submitted twice by that. One answer takes `timeout_s` at most. All methods raise
    PiqueueApiError, and may be called from many threads.
    """

    def __init__(
        self,
        url: str | None = None,
        api_key: str | None = None,
        *,
        timeout_s: float = 60,
        patience_s: float = 300,
        on_retry: Callable[[PiqueueApiError, float], None] | None = None,
    ) -> None:
        settings = ClientSettings()
        key = api_key or (settings.api_key and settings.api_key.get_secret_value())
        self.url = (url or settings.url).rstrip("/")
        if problem := url_problem(self.url):
            raise PiqueueApiError("url_invalid", f"{self.url}, the address of the API: {problem}")
        self._http = httpx2.Client(
            base_url=self.url,
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=timeout_s,
            trust_env=urlsplit(self.url).hostname not in _LOOPBACK,  # no proxy leads back here
        )
        self._patience_s = patience_s
        self._on_retry = on_retry
        self._reached = False
        self._given_up = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close all connections."""
        self.give_up()
        self._http.close()

    def give_up(self) -> None:
        """Try nothing again from now on, in no thread."""
        self._given_up.set()

    # Submitting.

    def submit_urls(self, urls: Iterable[str], options: JobOptions | None = None) -> JobOut:
        """Submit pictures by URL; their ids are their indexes."""
        return self.submit_items((ItemIn(url=url) for url in urls), options)

    def submit_items(self, items: Iterable[ItemIn], options: JobOptions | None = None) -> JobOut:
        """Submit pictures by URL, with ids and columns of your own."""
        body = _ndjson(items)
        return self.submit_ndjson(lambda: [body], options)

    def submit_ndjson(self, lines: Path | Body, options: JobOptions | None = None) -> JobOut:
        """Submit a file, or what `lines` yields at each call, of one JSON item a line."""
        return self._table(JobOut, "application/x-ndjson", lines, _fields(options))

    def submit_csv(
        self,
        table: Path | Body,
        options: JobOptions | None = None,
        *,
        url_column: str = "url",
        id_column: str | None = None,
    ) -> JobOut:
        """Submit a CSV file, or what `table` yields at each call: UTF-8, commas, a header row."""
        columns = _columns(url_column, id_column)
        return self._table(JobOut, "text/csv", table, {**_fields(options), **columns})

    def dry_run_ndjson(self, lines: Path | Body, options: JobOptions | None = None) -> DryRunOut:
        """Say what `submit_ndjson` would come to; some URLs are tried, nothing is kept."""
        fields = {**_fields(options), "dry_run": True}
        return self._table(DryRunOut, "application/x-ndjson", lines, fields)

    def dry_run_csv(
        self,
        table: Path | Body,
        options: JobOptions | None = None,
        *,
        url_column: str = "url",
        id_column: str | None = None,
    ) -> DryRunOut:
        """Say what `submit_csv` would come to; some URLs are tried, nothing is kept."""
        fields = {**_fields(options), **_columns(url_column, id_column), "dry_run": True}
        return self._table(DryRunOut, "text/csv", table, fields)

    def submit_files(
        self, pictures: Mapping[str, Path | bytes], options: JobOptions | None = None
    ) -> JobOut:
        """Submit files by id in one request, all or none; more than a thousand want a draft."""
        return self._post_files("/jobs", pictures, options, _new_key())

    def _table(
        self, model: type[_Model], kind: str, table: Path | Body, params: Mapping[str, Any]
    ) -> _Model:
        if "metadata" in params:
            params = {**params, "metadata": json.dumps(params["metadata"])}
        return self._request(
            model,
            "POST",
            "/jobs",
            body=(lambda: _read(table)) if isinstance(table, Path) else table,
            headers={"Content-Type": kind, **_new_key()},
            params=params,
        )

    # Drafts: items are added in parts, each once by its id, then submitted as a whole.

    def open_draft(self, options: JobOptions | None = None) -> JobOut:
        """Begin a job that takes items until it is submitted."""
        return self._job("/jobs", json={**_fields(options), "draft": True})

    def add_items(self, job_id: str, items: Iterable[ItemIn]) -> JobOut:
        """Add pictures by URL to a draft; give them ids, for an id is taken in once."""
        return self._job(
            f"/jobs/{job_id}/items",
            content=_ndjson(items),
            headers={"Content-Type": "application/x-ndjson"},
        )

    def add_files(self, job_id: str, pictures: Mapping[str, Path | bytes]) -> JobOut:
        """Add files by id to a draft; where some are refused the error lists them, and the rest
        is added."""
        return self._post_files(f"/jobs/{job_id}/items", pictures, None, {})

    def draft_ids(self, job_id: str) -> Iterator[str]:
        """List the ids of the items that a draft has so far."""
        for page in self._pages(f"/jobs/{job_id}/items", DraftItemsPage, {}):
            yield from (item.id for item in page.items)

    def submit_draft(self, job_id: str) -> JobOut:
        """Submit a draft to be scored; one that is submitted already is given as it stands."""
        try:
            return self._job(f"/jobs/{job_id}/submit")
        except PiqueueApiError as error:
            if error.code != "job_not_draft":
                raise
            return self.job(job_id)

    def _post_files(
        self,
        path: str,
        pictures: Mapping[str, Path | bytes],
        options: JobOptions | None,
        headers: Mapping[str, str],
    ) -> JobOut:
        files = [
            ("files", (item_id, file if isinstance(file, bytes) else file.read_bytes()))
            for item_id, file in pictures.items()
        ]
        form = {"options": json.dumps(_fields(options))} if options else {}
        return self._job(path, files=files, data=form, headers=headers)

    # Following and reading.

    def ready(self) -> bool:
        """Whether the API answers and a worker is ready to score."""
        try:
            return self._http.get("/readyz").is_success
        except httpx2.TransportError:
            return False

    def models(self) -> list[ModelCardOut]:
        """List the models that jobs may name."""
        return self._request(_Models, "GET", "/models").root

    def limits(self) -> LimitsOut:
        """Read what one may send, and how much of one's quota is used."""
        return self._request(LimitsOut, "GET", "/limits")

    def job(self, job_id: str, *, wait_s: float = 0) -> JobOut:
        """Read where a job stands: now, or once it is done or `wait_s` have passed."""
        params = {"wait": wait_s, "results": False}
        return self._request(JobOut, "GET", f"/jobs/{job_id}", params=params)

    def jobs(self, status: JobStatus | None = None) -> Iterator[JobOut]:
        """List your jobs, newest first."""
        params = {} if status is None else {"status": status}
        for page in self._pages("/jobs", JobsPage, params):
            yield from page.jobs

    def follow(self, job_id: str, *, every_s: float = 1) -> Iterator[JobOut]:
        """Read where a job stands every `every_s`, until it is done; a draft never is."""
        while True:
            job = self.job(job_id, wait_s=every_s)
            yield job
            if job.done:
                return

    def wait(self, job_id: str, timeout_s: float | None = None) -> JobOut:
        """Give the job once it is done.

        Raises:
            TimeoutError: it is not after `timeout_s`.
        """
        started = time.monotonic()
        for job in self.follow(job_id):
            if job.done:
                return job
            if timeout_s is not None and time.monotonic() - started > timeout_s:
                break
        raise TimeoutError(f"{job_id} is not done after {timeout_s} s")

    def results(self, job_id: str, **filters: Unpack[Filters]) -> Iterator[ResultOut]:
        """Read the finished items in index order, also while the job runs."""
        params = {**filters, "format": "json", "limit": PAGE_ITEMS}
        for page in self._pages(f"/jobs/{job_id}/results", ResultsPage, params):
            yield from page.items

    def download(
        self,
        job_id: str,
        target: BinaryIO,
        results_format: ResultsFormat,
        **filters: Unpack[Filters],
    ) -> None:
        """Write all finished items to `target`, which is begun anew if the connection breaks."""
        params: dict[str, Any] = {**filters, "format": results_format}

        def once() -> None:
            target.seek(0)
            target.truncate()
            with self._http.stream("GET", f"/jobs/{job_id}/results", params=params) as response:
                self._accept(response)
                for part in response.iter_bytes(READ_BYTES):
                    target.write(part)

        self._persist(once)

    # Acting.

    def cancel(self, job_id: str) -> JobOut:
        """Stop a job; the results it has stay."""
        return self._job(f"/jobs/{job_id}/cancel")

    def retry(self, job_id: str, only: Literal["failed", "retryable"] = "failed") -> JobOut:
        """Submit the failed items of a job again, or those where it may help; gives the new job."""
        return self._job(f"/jobs/{job_id}/retry", json={"only": only}, headers=_new_key())

    def delete(self, job_id: str) -> None:
        """Stop a job and erase it with its pictures and results."""
        self._persist(lambda: self._accept(self._http.delete(f"/jobs/{job_id}")))

    # Requests.

    def _job(self, path: str, **request: Any) -> JobOut:
        return self._request(JobOut, "POST", path, **request)

    def _pages(self, path: str, model: type[_Model], params: Mapping[str, Any]) -> Iterator[_Model]:
        cursor: dict[str, str] = {}
        while True:
            page = self._request(model, "GET", path, params={**params, **cursor})
            yield page
            next_cursor = getattr(page, "next_cursor", None)
            if next_cursor is None:
                return
            cursor = {"cursor": next_cursor}

    def _request(
        self,
        model: type[_Model],
        method: str,
        path: str,
        *,
        body: Body | None = None,
        **request: Any,
    ) -> _Model:
        def once() -> _Model:
            if body is not None:  # made anew for each try
                request["content"] = body()
            response = self._accept(self._http.request(method, path, **request))
            try:
                return model.model_validate_json(response.content)
            except ValidationError:
                detail = f"what answers at {self.url} is not Piqueue, or not of this version"
                raise PiqueueApiError("not_piqueue", detail, response.status_code) from None

        return self._persist(once)

    def _accept(self, response: httpx2.Response) -> httpx2.Response:
        self._reached = True
        if not response.is_success:
            response.read()
            raise PiqueueApiError.of(response)
        return response

    def _persist(self, once: Callable[[], _Answer]) -> _Answer:
        """Call `once` until it succeeds, fails for good, or patience is at an end."""
        pause_s, give_up_at = _FIRST_PAUSE_S, None
        while True:
            patience_s = self._patience_s
            try:
                return once()
            except httpx2.TransportError as error:
                failure = PiqueueApiError("unreachable", self._unreachable(error))
                again = True
                never_sent = isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout)
                if never_sent and not self._reached:
                    patience_s = min(patience_s, FIRST_CONTACT_S)
            except PiqueueApiError as error:
                failure = error
                again = _may_pass(error)
            wait_s = failure.retry_after_s
            if wait_s is None:
                wait_s = pause_s * random.uniform(0.5, 1)  # noqa: S311
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            give_up_at = give_up_at or time.monotonic() + patience_s
            if not again or time.monotonic() + wait_s > give_up_at:
                raise failure from None
            if self._on_retry:
                self._on_retry(failure, wait_s)
            if self._given_up.wait(wait_s):
                raise failure from None

    def _unreachable(self, error: httpx2.TransportError) -> str:
        return f"no answer from {self.url} ({str(error) or type(error).__name__})"


def _may_pass(error: PiqueueApiError) -> bool:
    """Whether the same request may succeed later."""
    return error.status in _PASSING or error.code == "idempotency_in_flight"


def _fields(options: JobOptions | None) -> dict[str, Any]:
    """Options as the API takes them, without those that are not set."""
    fields = (options or JobOptions()).given
    if "dry_run" in fields:
        raise ValueError("a dry run makes no job: call dry_run_csv or dry_run_ndjson")
    return fields


def _columns(url_column: str, id_column: str | None) -> dict[str, str]:
    return {"url_column": url_column, **({"id_column": id_column} if id_column else {})}


def _new_key() -> dict[str, str]:
    return {"Idempotency-Key": uuid.uuid4().hex}


def _ndjson(items: Iterable[ItemIn]) -> bytes:
    return "".join(f"{item.model_dump_json(exclude_none=True)}\n" for item in items).encode()


def _read(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while part := file.read(READ_BYTES):
            yield part
