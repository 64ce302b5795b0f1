"""The client for programs without an event loop."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self, TypeVar, Unpack

import httpx2

from piqueue import requests
from piqueue.connection import Attempts, Connection
from piqueue.errors import PiqueueApiError
from piqueue.requests import READ_BYTES, Answer, Request
from piqueue.types import (
    Body,
    Columns,
    DryRun,
    Filters,
    Item,
    Job,
    JobOptions,
    JobStatus,
    Limits,
    Model,
    Page,
    Result,
    ResultsFormat,
)

_Page = TypeVar("_Page", bound=Page)
_T = TypeVar("_T")


class Client(Connection):
    """A client of the API at `url`, which identifies itself with `api_key`.

    Both default to the environment: PIQUEUE_URL (else http://127.0.0.1:8000), PIQUEUE_API_KEY.

    A request that cannot be answered now, because the API is away or overloaded or a quota is used
    up, is sent again for up to `patience_s` seconds, or 10 s at an address that never answered.
    Idempotency keys ensure that nothing is submitted twice. `on_retry(error, pause_s)` is called
    before each pause. Connecting, and each read and write, takes at most `timeout_s` seconds.

    All methods raise PiqueueApiError. They may be called from many threads.

    Example:
        with Client("https://piqueue.example.com", api_key="pq_...") as client:
            job = client.submit_urls(["https://example.com/beach.jpg"])
            client.wait(job.id, timeout_s=60)
            for result in client.results(job.id):
                print(result.id, result.scores or result.error)
    """

    def _open(self, **options: Any) -> None:
        self._http = httpx2.Client(**options)
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
        """End all retries, in all threads: a request that waits for its next attempt fails."""
        self._given_up.set()

    # Submitting.

    def submit_urls(self, urls: Iterable[str], options: JobOptions | None = None) -> Job:
        """Submit pictures by URL. The ids of the items are their indexes, "0", "1", ...

        Raises:
            PiqueueApiError: `items_refused` lists the invalid URLs; nothing is submitted.

        Example:
            client.submit_urls(["https://example.com/a.jpg"], JobOptions(model="scenes"))
        """
        return self.submit_items((Item(url=url) for url in urls), options)

    def submit_items(self, items: Iterable[Item], options: JobOptions | None = None) -> Job:
        """Submit pictures by URL, with ids and columns of your own.

        Example:
            client.submit_items([Item(url=url, id=sku) for url, sku in rows])
        """
        body = requests.ndjson(items)
        return self.submit_ndjson(lambda: [body], options)

    def submit_ndjson(self, lines: Path | Body, options: JobOptions | None = None) -> Job:
        """Submit items as JSON, one a line: a file, or a function that gives the parts of one."""
        return self._send(requests.submit_ndjson(lines, options))

    def submit_csv(
        self, table: Path | Body, options: JobOptions | None = None, **columns: Unpack[Columns]
    ) -> Job:
        """Submit a CSV table: a file, or a function that gives the parts of one.

        The table is UTF-8 with commas and a header row. All columns are returned with the results.

        Example:
            client.submit_csv(Path("photos.csv"), url_column="image", id_column="sku")
        """
        return self._send(requests.submit_csv(table, options, columns))

    def dry_run_ndjson(self, lines: Path | Body, options: JobOptions | None = None) -> DryRun:
        """Check what `submit_ndjson` would submit, and fetch up to 50 URLs; nothing is stored."""
        return self._send(requests.dry_run_ndjson(lines, options))

    def dry_run_csv(
        self, table: Path | Body, options: JobOptions | None = None, **columns: Unpack[Columns]
    ) -> DryRun:
        """Check what `submit_csv` would submit, and fetch up to 50 URLs; nothing is stored."""
        return self._send(requests.dry_run_csv(table, options, columns))

    def submit_files(
        self, pictures: Mapping[str, Path | bytes], options: JobOptions | None = None
    ) -> Job:
        """Submit files by id in one request, all or none. Use a draft for more than a thousand.

        Example:
            client.submit_files({"beach": Path("beach.jpg")})
        """
        return self._send(requests.submit_files(pictures, options))

    # Drafts: items are added in parts, each once by its id, then submitted as a whole.

    def open_draft(self, options: JobOptions | None = None) -> Job:
        """Create a job that accepts items until it is submitted.

        Example:
            draft = client.open_draft()
            client.add_files(draft.id, {"beach": Path("beach.jpg")})
            client.submit_draft(draft.id)
        """
        return self._send(requests.open_draft(options))

    def add_items(self, job_id: str, items: Iterable[Item]) -> Job:
        """Add pictures by URL to a draft. Give them ids: an id is added only once."""
        return self._send(requests.add_items(job_id, items))

    def add_files(self, job_id: str, pictures: Mapping[str, Path | bytes]) -> Job:
        """Add files by id to a draft. An id is added only once.

        Raises:
            PiqueueApiError: `items_refused` lists the refused files; the others are added.
        """
        return self._send(requests.add_files(job_id, pictures))

    def draft_ids(self, job_id: str) -> Iterator[str]:
        """List the ids of the items that a draft has."""
        for page in self._pages(requests.draft_items(job_id)):
            yield from (item.id for item in page.items)

    def submit_draft(self, job_id: str) -> Job:
        """Submit a draft; a job that is submitted already is returned unchanged."""
        try:
            return self._send(requests.submit_draft(job_id))
        except PiqueueApiError as error:
            if error.code != "job_not_draft":
                raise
            return self.job(job_id)

    # Following and reading.

    def ready(self) -> bool:
        """Whether the API answers and a worker is ready to score. Never raises."""
        try:
            return self._http.get("/readyz").is_success
        except httpx2.TransportError:
            return False

    def models(self) -> list[Model]:
        """List the models that jobs may name."""
        return self._send(requests.MODELS)

    def limits(self) -> Limits:
        """Read the limits of requests and jobs, and the use of the caller's quota."""
        return self._send(requests.LIMITS)

    def job(self, job_id: str, *, wait_s: float = 0) -> Job:
        """Read a job: now, or once it is done or `wait_s` seconds have passed.

        Raises:
            PiqueueApiError: `job_not_found`: there is no such job, or it has expired.
        """
        return self._send(requests.job(job_id, wait_s))

    def jobs(self, status: JobStatus | None = None) -> Iterator[Job]:
        """List the jobs of the caller, newest first."""
        for page in self._pages(requests.jobs(status)):
            yield from page.jobs

    def follow(self, job_id: str, *, every_s: float = 1) -> Iterator[Job]:
        """Read a job every `every_s` seconds until it is done; a draft never is."""
        while True:
            job = self.job(job_id, wait_s=every_s)
            yield job
            if job.done:
                return

    def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        """Return the job once it is done.

        Raises:
            TimeoutError: it is not done after `timeout_s` seconds.
        """
        started = time.monotonic()
        for job in self.follow(job_id):
            if job.done:
                return job
            if timeout_s is not None and time.monotonic() - started > timeout_s:
                break
        raise TimeoutError(f"{job_id} is not done after {timeout_s} s")

    def results(self, job_id: str, **filters: Unpack[Filters]) -> Iterator[Result]:
        """Read the finished items in index order, also while the job runs.

        Example:
            for result in client.results(job.id, label="beach", threshold=0.9): ...
        """
        for page in self._pages(requests.results(job_id, filters)):
            yield from page.items

    def download(
        self,
        job_id: str,
        target: BinaryIO,
        results_format: ResultsFormat,
        **filters: Unpack[Filters],
    ) -> None:
        """Write all finished items to `target`, a file that can seek.

        If the connection breaks, `target` is truncated and written again from its start.

        Example:
            with open("results.csv", "wb") as file:
                client.download(job.id, file, "csv", status="succeeded")
        """
        request = requests.download(job_id, results_format, filters)

        def once() -> None:
            target.seek(0)
            target.truncate()
            with self._http.stream("GET", request.path, **request.arguments) as response:
                if not response.is_success:
                    response.read()
                self._check(response)
                for part in response.iter_bytes(READ_BYTES):
                    target.write(part)

        self._retrying(once)

    # Acting.

    def cancel(self, job_id: str) -> Job:
        """Stop a job; the results it has remain."""
        return self._send(requests.cancel(job_id))

    def retry(self, job_id: str, only: Literal["failed", "retryable"] = "failed") -> Job:
        """Submit the failed items of a job again, or the retryable ones; returns the new job."""
        return self._send(requests.retry(job_id, only))

    def delete(self, job_id: str) -> None:
        """Stop a job and erase it with its pictures and results."""
        self._send(requests.delete(job_id))

    def _send(self, request: Request[Answer]) -> Answer:
        def once() -> Answer:
            arguments = request.arguments
            if request.body is not None:
                arguments["content"] = request.body()
            response = self._http.request(request.method, request.path, **arguments)
            return self._decode(request, response)

        return self._retrying(once)

    def _pages(self, request: Request[_Page]) -> Iterator[_Page]:
        page = self._send(request)
        yield page
        while page.next_cursor is not None:
            page = self._send(request.at(page.next_cursor))
            yield page

    def _retrying(self, once: Callable[[], _T]) -> _T:
        """Call `once` until it succeeds, fails for good, or patience has run out."""
        attempts = Attempts(self)
        while True:
            try:
                return once()
            except (httpx2.TransportError, PiqueueApiError) as error:
                failure, pause_s = attempts.failed(error)
            if self._given_up.wait(pause_s):
                raise failure
