"""Fetches many URLs at a time for the threads of a worker process."""

import asyncio
import queue
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from aiohttp.abc import AbstractResolver

from worker.fetching.downloads import Downloads
from worker.fetching.loop_thread import LoopThread
from worker.fetching.session import FetchLimits, Outcome, open_session
from worker.jobs.traces import span

# Position, outcome, and the callback for when the reader has taken it.
_Delivery = tuple[int, Outcome, Callable[[], None]]


class Fetcher:
    """One HTTP session in one event-loop thread, shared by all threads of a process."""

    def __init__(self, limits: FetchLimits, resolver: AbstractResolver | None = None) -> None:
        """Start the thread; `resolver` replaces the system's."""
        self._limits = limits
        self._closing = threading.Lock()
        self._closed = False
        self._loop = LoopThread("fetcher")
        self._loop.run(self._open(resolver))

    def fetch_all(self, urls: Sequence[str]) -> Generator[tuple[int, Outcome], None, None]:
        """Yield (position in `urls`, outcome) as the outcomes arrive, exactly one per URL.

        Fetching begins with the first `next()`. Each outcome that is taken frees a slot for the
        next download. Closing or dropping the generator cancels the other downloads.

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
        """Cancel all downloads, close all connections and end the thread."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
        # The downloads end before the session does: otherwise they would blame their hosts.
        self._loop.close(self._session.close())

    async def _open(self, resolver: AbstractResolver | None) -> None:
        # A lookup blocks its thread, even after its download was cancelled.
        lookups = ThreadPoolExecutor(2 * self._limits.concurrency, "lookup")
        asyncio.get_running_loop().set_default_executor(lookups)
        limits = self._limits
        self._session = open_session(limits.per_host, limits.allow_networks, resolver)
        self._downloads = Downloads(self._session, limits)

    async def _fetch_each(self, urls: Sequence[str], deliver: Callable[[_Delivery], None]) -> None:
        async with asyncio.TaskGroup() as group:
            for position, url in enumerate(urls):
                group.create_task(self._fetch_one(position, url, deliver))

    async def _fetch_one(
        self, position: int, url: str, deliver: Callable[[_Delivery], None]
    ) -> None:
        taken = asyncio.Event()
        with ExitStack() as resources:
            with span("fetch") as attributes:
                outcome = await self._downloads.fetch(url, resources)
                attributes["outcome"] = outcome.label
            deliver((position, outcome, taken.set))
            await taken.wait()
