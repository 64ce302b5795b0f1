"""The client for programs with an event loop, asyncio or trio."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Literal, Self, TypeVar, Unpack

import anyio
import httpx2
from anyio.to_thread import run_sync

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


class AsyncClient(Connection):
    """The methods and arguments of Client, to be awaited or iterated with `async for`.

    Files are read and written in threads.

    Example:
        async with AsyncClient() as client:
            job = await client.submit_urls(["https://example.com/beach.jpg"])
            await client.wait(job.id, timeout_s=60)
            async for result in client.results(job.id):
                print(result.id, result.scores or result.error)
    """

    def _open(self, **options: Any) -> None:
        self._http = httpx2.AsyncClient(**options)
        self._given_up = anyio.Event()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        self.give_up()
        await self._http.aclose()

    def give_up(self) -> None:
        """End all retries, in all tasks: a request that waits for its next attempt fails."""
        self._given_up.set()

    # Submitting.

    async def submit_urls(self, urls: Iterable[str], options: JobOptions | None = None) -> Job:
        """Submit pictures by URL. The ids of the items are their indexes."""
        return await self.submit_items((Item(url=url) for url in urls), options)

    async def submit_items(self, items: Iterable[Item], options: JobOptions | None = None) -> Job:
        """Submit pictures by URL, with ids and columns of your own."""
        body = requests.ndjson(items)
        return await self.submit_ndjson(lambda: [body], options)

    async def submit_ndjson(self, lines: Path | Body, options: JobOptions | None = None) -> Job:
        """Submit items as JSON, one a line: a file, or a function that gives the parts of one."""
        return await self._send(requests.submit_ndjson(lines, options))

    async def submit_csv(
        self, table: Path | Body, options: JobOptions | None = None, **columns: Unpack[Columns]
    ) -> Job:
        """Submit a CSV table: a file, or a function that gives the parts of one."""
        return await self._send(requests.submit_csv(table, options, columns))

    async def dry_run_ndjson(self, lines: Path | Body, options: JobOptions | None = None) -> DryRun:
        """Check what `submit_ndjson` would submit, and fetch up to 50 URLs; nothing is stored."""
        return await self._send(requests.dry_run_ndjson(lines, options))

    async def dry_run_csv(
        self, table: Path | Body, options: JobOptions | None = None, **columns: Unpack[Columns]
    ) -> DryRun:
        """Check what `submit_csv` would submit, and fetch up to 50 URLs; nothing is stored."""
        return await self._send(requests.dry_run_csv(table, options, columns))

    async def submit_files(
        self, pictures: Mapping[str, Path | bytes], options: JobOptions | None = None
    ) -> Job:
        """Submit files by id in one request, all or none. Use a draft for more than a thousand."""
        return await self._send(await run_sync(requests.submit_files, pictures, options))

    # Drafts: items are added in parts, each once by its id, then submitted as a whole.

    async def open_draft(self, options: JobOptions | None = None) -> Job:
        """Create a job that accepts items until it is submitted."""
        return await self._send(requests.open_draft(options))

    async def add_items(self, job_id: str, items: Iterable[Item]) -> Job:
        """Add pictures by URL to a draft. Give them ids: an id is added only once."""
        return await self._send(requests.add_items(job_id, items))

    async def add_files(self, job_id: str, pictures: Mapping[str, Path | bytes]) -> Job:
        """Add files by id to a draft. An id is added only once."""
        return await self._send(await run_sync(requests.add_files, job_id, pictures))

    async def draft_ids(self, job_id: str) -> AsyncIterator[str]:
        """List the ids of the items that a draft has."""
        async for page in self._pages(requests.draft_items(job_id)):
            for item in page.items:
                yield item.id

    async def submit_draft(self, job_id: str) -> Job:
        """Submit a draft; a job that is submitted already is returned unchanged."""
        try:
            return await self._send(requests.submit_draft(job_id))
        except PiqueueApiError as error:
            if error.code != "job_not_draft":
                raise
            return await self.job(job_id)

    # Following and reading.

    async def ready(self) -> bool:
        """Whether the API answers and a worker is ready to score. Never raises."""
        try:
            return (await self._http.get("/readyz")).is_success
        except httpx2.TransportError:
            return False

    async def models(self) -> list[Model]:
        """List the models that jobs may name."""
        return await self._send(requests.MODELS)

    async def limits(self) -> Limits:
        """Read the limits of requests and jobs, and the use of the caller's quota."""
        return await self._send(requests.LIMITS)

    async def job(self, job_id: str, *, wait_s: float = 0) -> Job:
        """Read a job: now, or once it is done or `wait_s` seconds have passed."""
        return await self._send(requests.job(job_id, wait_s))

    async def jobs(self, status: JobStatus | None = None) -> AsyncIterator[Job]:
        """List the jobs of the caller, newest first."""
        async for page in self._pages(requests.jobs(status)):
            for job in page.jobs:
                yield job

    async def follow(self, job_id: str, *, every_s: float = 1) -> AsyncIterator[Job]:
        """Read a job every `every_s` seconds until it is done; a draft never is."""
        while True:
            job = await self.job(job_id, wait_s=every_s)
            yield job
            if job.done:
                return

    async def wait(self, job_id: str, timeout_s: float | None = None) -> Job:
        """Return the job once it is done.

        Raises:
            TimeoutError: it is not done after `timeout_s` seconds.
        """
        started = time.monotonic()
        async for job in self.follow(job_id):
            if job.done:
                return job
            if timeout_s is not None and time.monotonic() - started > timeout_s:
                break
        raise TimeoutError(f"{job_id} is not done after {timeout_s} s")

    async def results(self, job_id: str, **filters: Unpack[Filters]) -> AsyncIterator[Result]:
        """Read the finished items in index order, also while the job runs."""
        async for page in self._pages(requests.results(job_id, filters)):
            for result in page.items:
                yield result

    async def download(
        self,
        job_id: str,
        target: BinaryIO,
        results_format: ResultsFormat,
        **filters: Unpack[Filters],
    ) -> None:
        """Write all finished items to `target`, from its start again if the connection breaks."""
        request = requests.download(job_id, results_format, filters)

        async def once() -> None:
            target.seek(0)
            target.truncate()
            async with self._http.stream("GET", request.path, **request.arguments) as response:
                if not response.is_success:
                    await response.aread()
                self._check(response)
                async for part in response.aiter_bytes(READ_BYTES):
                    await run_sync(target.write, part)

        await self._retrying(once)

    # Acting.

    async def cancel(self, job_id: str) -> Job:
        """Stop a job; the results it has remain."""
        return await self._send(requests.cancel(job_id))

    async def retry(self, job_id: str, only: Literal["failed", "retryable"] = "failed") -> Job:
        """Submit the failed items of a job again, or the retryable ones; returns the new job."""
        return await self._send(requests.retry(job_id, only))

    async def delete(self, job_id: str) -> None:
        """Stop a job and erase it with its pictures and results."""
        await self._send(requests.delete(job_id))

    async def _send(self, request: Request[Answer]) -> Answer:
        async def once() -> Answer:
            arguments = request.arguments
            if request.body is not None:
                arguments["content"] = _in_thread(request.body)
            response = await self._http.request(request.method, request.path, **arguments)
            return self._decode(request, response)

        return await self._retrying(once)

    async def _pages(self, request: Request[_Page]) -> AsyncIterator[_Page]:
        page = await self._send(request)
        yield page
        while page.next_cursor is not None:
            page = await self._send(request.at(page.next_cursor))
            yield page

    async def _retrying(self, once: Callable[[], Awaitable[_T]]) -> _T:
        """Call `once` until it succeeds, fails for good, or patience has run out."""
        attempts = Attempts(self)
        while True:
            try:
                return await once()
            except (httpx2.TransportError, PiqueueApiError) as error:
                failure, pause_s = attempts.failed(error)
            with anyio.move_on_after(pause_s):
                await self._given_up.wait()
                raise failure


async def _in_thread(body: Body) -> AsyncIterator[bytes]:
    """The parts of a body, which may come from a file."""
    parts = iter(body())
    while (part := await run_sync(next, parts, None)) is not None:
        yield part
