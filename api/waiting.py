"""Waiting for a job to be done without asking again and again."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import structlog
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from worker.jobs.record import Job, JobStatus
from worker.jobs.store import EVENTS_CHANNEL, JobStore

# An event can be lost with its connection; the job itself is looked at this often.
LOOK_EVERY_S = 2.0
RECONNECT_S = 0.5

log = structlog.get_logger()


class Waiters:
    """Hears of finished jobs over one Redis subscription and wakes who waits for them."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._events: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[None]:
        """Listen while the block runs."""
        task = asyncio.create_task(self._listen())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    async def wait_done(self, store: JobStore, job_id: str, timeout_s: float) -> Job:
        """Give the job once it is done, or as it stands after `timeout_s`."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        event = asyncio.Event()
        self._events[job_id].add(event)
        try:
            while True:
                job = await run_in_threadpool(store.job, job_id)
                left_s = deadline - asyncio.get_running_loop().time()
                if job.status.done or left_s <= 0:
                    return job
                with suppress(TimeoutError):
                    await asyncio.wait_for(event.wait(), min(left_s, LOOK_EVERY_S))
                event.clear()
        finally:
            self._events[job_id].discard(event)
            if not self._events[job_id]:
                del self._events[job_id]

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
        if job_id in self._events and (status == "erased" or JobStatus(status).done):
            for event in self._events[job_id]:
                event.set()
