"""Job events: clients wait for a job to change without polling Redis."""

import asyncio
from collections import OrderedDict, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from functools import partial
from typing import Any, TypeVar

import structlog
from redis.asyncio.client import PubSub
from redis.exceptions import RedisError
from starlette.concurrency import run_in_threadpool

from api.schemas import JobOut
from worker.jobs.ledger.connection import connect_async
from worker.jobs.ledger.reader import JobWithResults
from worker.jobs.ledger.store import EVENTS_CHANNEL
from worker.jobs.record import Job, JobStatus

# An event can be lost with its connection, so the job itself is read this often.
REREAD_EVERY_S = 2.0
RECONNECT_S = 0.5
# A server that sends nothing for this long is asked for an answer.
SILENT_S = 5.0
# The last jobs that ended are remembered for clients that subscribe after the end.
REMEMBERED_JOBS = 1000

log = structlog.get_logger()


JobT = TypeVar("JobT", Job, JobOut, JobWithResults)


class Subscription:
    """Notifies one client of the changes of one job."""

    def __init__(self) -> None:
        self._changed = asyncio.Event()
        self._final = asyncio.Event()

    def notify(self, *, final: bool) -> None:
        """Report a change; `final` if the job is done or erased."""
        self._changed.set()
        if final:
            self._final.set()

    async def wait(self, min_s: float, max_s: float) -> None:
        """Return after a final change at once, after any other change once `min_s` have passed,
        and without a change after `max_s`. Changes before the last wait ended do not count."""
        if not await _is_set(self._final, min_s):
            await _is_set(self._changed, max_s - min_s)
        self._changed.clear()
        self._final.clear()


async def _is_set(event: asyncio.Event, timeout_s: float) -> bool:
    """Wait for an event; False when it did not come in time."""
    with suppress(TimeoutError):
        await asyncio.wait_for(event.wait(), timeout_s)
    return event.is_set()


class JobEvents:
    """Receives the events of all jobs over one Redis subscription and notifies the subscribers."""

    def __init__(self, redis_url: str) -> None:
        self._redis_url = redis_url
        self._subscriptions: defaultdict[str, set[Subscription]] = defaultdict(set)
        # The events of the last ends, by job.
        self._ended: OrderedDict[str, bytes] = OrderedDict()
        self._loop: asyncio.AbstractEventLoop | None = None
        self.shutting_down = False

    @property
    def subscribed_job_count(self) -> int:
        """Jobs that clients wait for at the moment."""
        return len(self._subscriptions)

    @asynccontextmanager
    async def receiving(self) -> AsyncIterator[None]:
        """Receive events while the block runs."""
        self._loop = asyncio.get_running_loop()
        task = asyncio.create_task(self._receive())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task

    def shut_down(self) -> None:
        """End all waits, because this process is about to exit; may be called from any thread."""
        self.shutting_down = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._notify_all)

    def _notify_all(self) -> None:
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.notify(final=True)

    @contextmanager
    def subscribe(self, job_id: str) -> Iterator[Subscription]:
        """Subscribe to a job while the block runs; read the job after this, or miss a change."""
        subscription = Subscription()
        self._subscriptions[job_id].add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions[job_id].discard(subscription)
            if not self._subscriptions[job_id]:
                del self._subscriptions[job_id]

    async def wait_done(
        self,
        job_id: str,
        read: Callable[[], JobT],
        timeout_s: float,
        at_end: Callable[[bytes], JobT | None] = lambda _: None,
    ) -> JobT:
        """Return the job, as `read` gives it in a thread, once it is done, after `timeout_s`, or
        when this process shuts down.

        It is not read before an event says that it is done, or REREAD_EVERY_S have passed, and not
        at all if `at_end` can make it from that event.
        """
        deadline = asyncio.get_running_loop().time() + timeout_s
        with self.subscribe(job_id) as subscription:
            if job_id in self._ended:
                subscription.notify(final=True)
            while True:
                left_s = deadline - asyncio.get_running_loop().time()
                wait_s = max(0, min(left_s, REREAD_EVERY_S))
                if not self.shutting_down:
                    await subscription.wait(min_s=wait_s, max_s=wait_s)
                if (event := self._ended.get(job_id)) and (ended := at_end(event)) is not None:
                    return ended
                job = await run_in_threadpool(read)
                if job.status.done or left_s <= REREAD_EVERY_S or self.shutting_down:
                    return job

    async def _receive(self) -> None:
        async with connect_async(self._redis_url) as redis:
            while True:
                try:
                    async with redis.pubsub() as pubsub:
                        await pubsub.subscribe(EVENTS_CHANNEL)
                        async for message in _messages(pubsub):
                            self._dispatch(message)
                except (RedisError, OSError) as error:
                    log.warning("job_events_disconnected", reason=str(error))
                    await asyncio.sleep(RECONNECT_S)

    def _dispatch(self, message: bytes) -> None:
        head = message.partition(b"\n")[0]
        job_id, status = head.decode().split()[:2]
        final = status == "erased" or JobStatus(status).done
        if final:
            self._ended[job_id] = message
            if len(self._ended) > REMEMBERED_JOBS:
                self._ended.popitem(last=False)
        if job_id in self._subscriptions:
            for subscription in self._subscriptions[job_id]:
                subscription.notify(final=final)


async def _messages(pubsub: PubSub) -> AsyncIterator[bytes]:
    """Give each message; raises TimeoutError if the server is silent, such as one that is gone.

    It reads from the connection, because `PubSub.get_message` would add a health check and retries
    to each message.
    """
    connection: Any = pubsub.connection
    receive = partial(connection.read_response, timeout=SILENT_S, push_request=True)
    while True:
        answer = await receive()
        if answer is None:
            await pubsub.ping()
            answer = await receive()
        if answer is None:
            raise TimeoutError("Redis does not answer")
        kind, *rest = answer
        if kind == b"message":
            yield rest[-1]
