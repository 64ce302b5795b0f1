"""Waiting for a job to change or to be done without asking again and again."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Protocol, TypeVar

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from worker.jobs.ledger.store import EVENTS_CHANNEL
from worker.jobs.record import JobStatus

# An event can be lost with its connection; the job itself is looked at this often.
LOOK_EVERY_S = 2.0
RECONNECT_S = 0.5

log = structlog.get_logger()


class Seen(Protocol):
    """A job as it was looked at."""

    @property
    def status(self) -> JobStatus:
        """Where it stood then."""


SeenT = TypeVar("SeenT", bound=Seen)


class News:
    """Tells one client of the changes of one job."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._over = asyncio.Event()

    def tell(self, *, over: bool) -> None:
        """Say that the job has changed, or that it is done or erased."""
        self._changed.set()
        if over:
            self._over.set()

    async def wait(self, least_s: float, most_s: float) -> None:
        """Return once the job has changed, but only after `least_s` unless it is over; or after
        `most_s`. What changed before the last wait ended does not count."""
        if not await _is_set(self._over, least_s):
            await _is_set(self._changed, most_s - least_s)
        self._changed.clear()
        self._over.clear()


async def _is_set(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait for an event; False when it did not come in time."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), timeout_s)
    return event.is_set()


class Waiters:
    """Hears of jobs over one Redis subscription and tells who waits for them."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._news: defaultdict[str, set[News]] = defaultdict(set)
        self._loop: asyncio.AbstractEventLoop | None = None
        self.dismissed = False

    @property
    def watched_count(self) -> int:
        """Jobs that clients wait for right now."""
        return len(self._news)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen while the block runs."""
        self._loop = asyncio.get_running_loop()
        task = asyncio.create_task(self._listen())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def dismiss(self) -> None:
        """Let all who wait go with what there is, from any thread: this process is to end."""
        self.dismissed = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._dismiss)

    def _dismiss(self) -> None:
        for waiting in self._news.values():
            for news in waiting:
                news.tell(over=True)

    @contextmanager
    def hearing(self, job_id: str) -> Iterator[News]:
        """Hear of a job while the block runs; read the job after this, or a change is missed."""
        news = News()
        self._news[job_id].add(news)
        try:
            yield news
        finally:
            self._news[job_id].discard(news)
            if not self._news[job_id]:
                del self._news[job_id]

    async def wait_done(self, job_id: str, look: Callable[[], SeenT], timeout_s: float) -> SeenT:
        """Give what `look`, which is called from a thread, sees of the job once that is done, or
        after `timeout_s`, or when dismissed."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        with self.hearing(job_id) as news:
            while True:
                seen = await run_in_threadpool(look)
                left_s = deadline - asyncio.get_running_loop().time()
                if seen.status.done or left_s <= 0 or self.dismissed:
                    return seen
                wait_s = min(left_s, LOOK_EVERY_S)
                await news.wait(least_s=wait_s, most_s=wait_s)

    async def _listen(self) -> None:
        while True:
            try:
                async with Redis.from_url(self._redis_url) as redis, redis.pubsub() as pubsub:
                    await pubsub.subscribe(EVENTS_CHANNEL)
                    async for message in pubsub.listen():
                        if message["type"] == "message":
                            self._hear(message["data"].decode())
            except (RedisError, OSError) as error:
                log.warning("events_lost", reason=str(error))
                await asyncio.sleep(RECONNECT_S)

    def _hear(self, message: str) -> None:
        job_id, _, status = message.partition(" ")
        if job_id in self._news:
            over = status == "erased" or JobStatus(status).done
            for news in self._news[job_id]:
                news.tell(over=over)
