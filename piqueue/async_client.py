"""The client for programs with an event loop, asyncio or trio."""

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, BinaryIO, Literal, Self, TypeVar, Unpack

import anyio
import httpx2
from anyio.to_thread import run_sync

from piqueue.connection import Attempts, Connection
from piqueue.errors import PiqueueApiError
from piqueue.requests import Answer, Download, Operations, Request
from piqueue.types import Body, Filters, Job, Page, ResultsFormat

_T = TypeVar("_T")


class AsyncClient(Operations, Connection):
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

    async def draft_ids(self, job_id: str) -> AsyncIterator[str]:
        """List the ids of the items that a draft has."""
        async for item in self._draft_items(job_id):
            yield item.id

    async def submit_draft(self, job_id: str) -> Job:
        """Submit a draft; a job that is submitted already is returned unchanged."""
        try:
            return await self._submit_draft(job_id)
        except PiqueueApiError as error:
            if error.code != "job_not_draft":
                raise
            return await self.job(job_id)

    async def ready(self) -> bool:
        """Whether the API answers and a worker is ready to score. Never raises."""
        try:
            return (await self._http.get("/readyz")).is_success
        except httpx2.TransportError:
            return False

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

    async def download(
        self,
        job_id: str,
        target: BinaryIO,
        results_format: ResultsFormat,
        **filters: Unpack[Filters],
    ) -> None:
        """Write all finished items to `target`; a download that breaks goes on."""
        await self._download(Download.of_results(job_id, target, results_format, filters))

    async def report(
        self, job_id: str, target: BinaryIO, *, merge: Literal["parents"] | None = None
    ) -> None:
        """Write the report of a job, an HTML page that loads nothing, to `target`."""
        await self._download(Download.of_report(job_id, target, merge))

    async def _download(self, download: Download) -> None:
        async def once() -> bool:
            request = download.request()
            arguments = request.arguments()
            try:
                async with self._http.stream("GET", request.path, **arguments) as response:
                    download.answered(response)
                    if not response.is_success:
                        await response.aread()
                    self._check(response)
                    async for part in response.aiter_bytes():
                        await run_sync(download.write, part)
            except httpx2.TransportError:
                if not download.advanced:
                    raise
                return False  # Patience begins anew.
            return True

        while not await self._retrying(once):
            pass

    async def _send(self, request: Request[Answer]) -> Answer:
        async def once() -> Answer:
            arguments = await run_sync(request.arguments)
            if request.body is not None:
                arguments["content"] = _in_thread(request.body)
            response = await self._http.request(request.method, request.path, **arguments)
            return self._decode(request, response)

        return await self._retrying(once)

    async def _list(self, request: Request[Page[_T]]) -> AsyncIterator[_T]:
        while True:
            page = await self._send(request)
            for one in page.items:
                yield one
            if page.next_cursor is None:
                return
            request = request.at(page.next_cursor)

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
