"""The client for programs without an event loop."""

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, Literal, Self, TypeVar, Unpack

import httpx2

from piqueue.connection import Attempts, Connection
from piqueue.errors import PiqueueApiError
from piqueue.requests import Answer, Download, Operations, Request
from piqueue.types import Filters, Job, Page, ResultsFormat

_T = TypeVar("_T")


class Client(Operations, Connection):
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

    def draft_ids(self, job_id: str) -> Iterator[str]:
        """List the ids of the items that a draft has."""
        return (item.id for item in self._draft_items(job_id))

    def submit_draft(self, job_id: str) -> Job:
        """Submit a draft; a job that is submitted already is returned unchanged."""
        try:
            return self._submit_draft(job_id)
        except PiqueueApiError as error:
            if error.code != "job_not_draft":
                raise
            return self.job(job_id)

    def ready(self) -> bool:
        """Whether the API answers and a worker is ready to score. Never raises."""
        try:
            return self._http.get("/readyz").is_success
        except httpx2.TransportError:
            return False

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

    def download(
        self,
        job_id: str,
        target: BinaryIO,
        results_format: ResultsFormat,
        **filters: Unpack[Filters],
    ) -> None:
        """Write all finished items to `target`, a file that can seek.

        If the connection breaks, the download goes on where it broke. `target` is truncated and
        written again from its start if the job is not done, and for Parquet.

        Example:
            with open("results.csv", "wb") as file:
                client.download(job.id, file, "csv", status="succeeded")
        """
        self._download(Download.of_results(job_id, target, results_format, filters))

    def report(
        self, job_id: str, target: BinaryIO, *, merge: Literal["parents"] | None = None
    ) -> None:
        """Write the report of a job, an HTML page that loads nothing, to `target`, a file that can
        seek. While the job runs, it covers the results so far. With `merge="parents"`, the report
        of a retry covers the jobs that it retried too.

        Example:
            with open("report.html", "wb") as file:
                client.report(job.id, file)
        """
        self._download(Download.of_report(job_id, target, merge))

    def _download(self, download: Download) -> None:
        def once() -> bool:
            request = download.request()
            arguments = request.arguments()
            try:
                with self._http.stream("GET", request.path, **arguments) as response:
                    download.answered(response)
                    if not response.is_success:
                        response.read()
                    self._check(response)
                    for part in response.iter_bytes():
                        download.write(part)
            except httpx2.TransportError:
                if not download.advanced:
                    raise
                return False  # Patience begins anew.
            return True

        while not self._retrying(once):
            pass

    def _send(self, request: Request[Answer]) -> Answer:
        def once() -> Answer:
            arguments = request.arguments()
            if request.body is not None:
                arguments["content"] = request.body()
            response = self._http.request(request.method, request.path, **arguments)
            return self._decode(request, response)

        return self._retrying(once)

    def _list(self, request: Request[Page[_T]]) -> Iterator[_T]:
        while True:
            page = self._send(request)
            yield from page.items
            if page.next_cursor is None:
                return
            request = request.at(page.next_cursor)

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
