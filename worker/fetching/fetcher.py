"""URLs to bytes, many at a time, for the threads of a worker process."""

import asyncio
import queue
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import structlog
from aiohttp.abc import AbstractResolver

from worker.fetching.loop_thread import LoopThread
from worker.fetching.retries import Downloads
from worker.fetching.session import (
    FetchCode,
    Fetched,
    FetchFailed,
    FetchLimits,
    UrlRefused,
    open_session,
    parse_url,
)
from worker.jobs.traces import span

__all__ = ["FetchCode", "FetchFailed", "FetchLimits", "Fetched", "Fetcher"]

log = structlog.get_logger()

Outcome = Fetched | FetchFailed
# Position, outcome, and what the reader calls once it has taken it.
_Delivery = tuple[int, Outcome, Callable[[], None]]


class Fetcher:
    """One HTTP session in one event-loop thread, shared by all threads of a process."""

    def __init__(self, limits: FetchLimits, resolver: AbstractResolver | None = None) -> None:
        """Start the thread; `resolver` stands in for the system's."""
        self._limits = limits
        self._closing = threading.Lock()
        self._closed = False
        self._loop = LoopThread("fetcher")
        self._loop.run(self._open(resolver))

    def fetch_all(self, urls: Sequence[str]) -> Generator[tuple[int, Outcome], None, None]:
        """Yield (position in `urls`, outcome) as the outcomes arrive, exactly one a URL.

        Fetching begins with the first `next()`. Taking an outcome makes room for the next
        download; closing or dropping the generator cancels what is left.

        Raises:
            RuntimeError, concurrent.futures.CancelledError: the fetcher was closed.
        """
        deliveries: queue.SimpleQueue[_Delivery | None] = queue.SimpleQueue()
        with self._closing:
            if self._closed:
                raise RuntimeError("the fetcher is closed")
            work = self._loop.begin(self._fetch_each(urls, deliveries.put))
        work.add_done_callback(lambda _: deliveries.put(None))
        try:
            while (delivery := deliveries.get()) is not None:
                position, outcome, taken = delivery
                self._loop.call(taken)
                yield position, outcome
            work.result()
        finally:
            work.cancel()

    def close(self) -> None:
        """Cancel what is under way, close every connection and end the thread."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        # Before the session closes all else ends, or that would look like the fault of the hosts.
        self._loop.close(self._session.close())

    async def _open(self, resolver: AbstractResolver | None) -> None:
        # Each lookup blocks a thread, and one that was given up goes on in its own.
        lookups = ThreadPoolExecutor(2 * self._limits.concurrency, "lookup")
        asyncio.get_running_loop().set_default_executor(lookups)
        self._session = open_session(self._limits, resolver)
        self._downloads = Downloads(self._session, self._limits)

    async def _fetch_each(self, urls: Sequence[str], deliver: Callable[[_Delivery], None]) -> None:
        async with asyncio.TaskGroup() as group:
            for position, url in enumerate(urls):
                group.create_task(self._fetch_one(position, url, deliver))

    async def _fetch_one(
        self, position: int, text: str, deliver: Callable[[_Delivery], None]
    ) -> None:
        taken = asyncio.Event()
        try:
            url = parse_url(text)
        except UrlRefused as error:
            failure = FetchFailed(FetchCode.BLOCKED_ADDRESS, False, str(error))
            deliver((position, failure, taken.set))
            return
        with ExitStack() as kept:
            with span("fetch") as shown:
                try:
                    outcome = await self._downloads.fetch(url, kept)
                except Exception as error:  # one answer must not cancel the other downloads
                    log.exception("fetch_failed_unexpectedly", host=url.host)
                    detail = f"the answer could not be read ({type(error).__name__})"
                    outcome = FetchFailed(FetchCode.CONNECTION, False, detail)
                shown["outcome"] = outcome.code if isinstance(outcome, FetchFailed) else "fetched"
            deliver((position, outcome, taken.set))
            await taken.wait()
