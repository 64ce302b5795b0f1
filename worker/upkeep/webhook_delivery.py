"""Delivers webhooks from the outbox, in a thread beside the scoring."""

import asyncio
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from urllib.parse import urlsplit

import aiohttp
import structlog
from standardwebhooks import Webhook

from worker.fetching.host_slots import HostSlots
from worker.fetching.session import UrlRefused, open_session, parse_url, rejection_from
from worker.jobs.errors import JobNotFound, LedgerUnavailable
from worker.jobs.items import RejectionCode
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.reader import JobReader
from worker.jobs.record import Job
from worker.jobs.settings import Settings
from worker.jobs.webhooks.outbox import Attempt, Delivery, HookState, Outbox
from worker.jobs.webhooks.payload import job_finished, webhook_id
from worker.jobs.webhooks.secrets import WebhookSecret, WebhookSecrets
from worker.scoring.metrics import WorkerMetrics
from worker.upkeep.periodic import PeriodicThread

POLL_S = 0.5
# The interval while deliveries are due.
POLL_BUSY_S = 0.1
# Concurrent deliveries of one process, and of these to one host; others are deferred.
CONCURRENCY = 32
PER_HOST = 8
# A lease is longer than the request by this, for the steps before and after it.
LEASE_MARGIN_S = 10
# Requests under way may take this long when the worker stops.
GRACE_S = 5
JITTER = 0.2
GONE = 410
HEADERS = {
    "User-Agent": "Piqueue (webhooks)",
    "Accept": "*/*",
    "Content-Type": "application/json",
}

log = structlog.get_logger()


class WebhookSender(PeriodicThread):
    """Posts the webhooks that are due, until stopped; the outbox keeps the others.

    `stop` gives the requests under way a few seconds.
    """

    def __init__(self, settings: Settings, metrics: WorkerMetrics) -> None:
        stop_s = POLL_S + GRACE_S + 1
        super().__init__("webhooks", 0, lambda: asyncio.run(self._deliver_until_stopped()), stop_s)
        redis = connect(settings.redis_url, retry_silence=True)
        self._settings = settings
        self._metrics = metrics
        self._jobs = JobReader(redis)
        self._outbox = Outbox(redis)
        self._secrets = WebhookSecrets(redis)
        self._slots = HostSlots(PER_HOST)
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def _deliver_until_stopped(self) -> None:
        # Calls of Redis and name lookups run in threads: at most one of each per delivery.
        executor = ThreadPoolExecutor(2 * CONCURRENCY, "webhook")
        asyncio.get_running_loop().set_default_executor(executor)
        async with open_session(PER_HOST, self._settings.fetch_allow_networks) as session:
            while not self.stopping.is_set():
                due = await self._due(CONCURRENCY - len(self._tasks))
                for job_id in due:
                    if job_id not in self._tasks:
                        task = asyncio.create_task(self._deliver(session, job_id), name=job_id)
                        self._tasks[job_id] = task
                        task.add_done_callback(self._ended)
                await asyncio.sleep(POLL_BUSY_S if due else POLL_S)
            if self._tasks:
                await asyncio.wait(self._tasks.values(), timeout=GRACE_S)

    async def _due(self, count: int) -> list[str]:
        if count == 0:
            return []
        try:
            return await asyncio.to_thread(self._outbox.due, count)
        except LedgerUnavailable as error:
            log.warning("outbox_unavailable", reason=str(error))
            return []

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Log the type of a task's error only: its text could contain the URL."""
        del self._tasks[task.get_name()]
        if not task.cancelled() and (error := task.exception()):
            log.error("webhook_task_failed", job_id=task.get_name(), kind=type(error).__name__)

    async def _deliver(self, session: aiohttp.ClientSession, job_id: str) -> None:
        """Make one attempt, if this worker gets the lease and the host has a free slot."""
        claimed = await asyncio.to_thread(self._claim, job_id)
        if claimed is None:
            return
        delivery, job, secret = claimed
        host = urlsplit(job.webhook_url or "").hostname or ""
        if wait_s := self._slots.wait_s(host, time.monotonic()):
            await asyncio.to_thread(self._outbox.defer, delivery, wait_s)
            return
        with self._slots.slot(host):
            attempt = await post(session, job, secret, self._settings.webhook_timeout_s)
        state, delay_s = next_step(
            attempt.status, delivery.attempts, self._settings.webhook_retry_s
        )
        self._metrics.webhook_attempted(state)
        await asyncio.to_thread(self._outbox.settle, delivery, attempt, state, delay_s)
        log.info(
            "webhook_attempted",
            job_id=job_id,
            attempt=delivery.attempts + 1,
            status=attempt.status,
            error=attempt.error,
            took_ms=attempt.took_ms,
            state=state,
        )

    def _claim(self, job_id: str) -> tuple[Delivery, Job, WebhookSecret] | None:
        lease_s = self._settings.webhook_timeout_s + LEASE_MARGIN_S
        delivery = self._outbox.claim(job_id, lease_s)
        if delivery is None:
            return None
        try:
            job = self._jobs.job(job_id)
        except JobNotFound:  # erased just now
            return None
        return delivery, job, self._secrets.get(job.owner)


async def post(
    session: aiohttp.ClientSession, job: Job, secret: WebhookSecret, timeout_s: float
) -> Attempt:
    """Send the event of a finished job once; reads nothing of the answer but its status."""
    at, started = time.time(), time.monotonic()
    status = error = None
    body = job_finished(job)
    headers = {**HEADERS, **signature(webhook_id(job.id), body, secret, datetime.now(UTC))}
    try:
        async with (
            asyncio.timeout(timeout_s),
            session.post(
                parse_url(job.webhook_url or ""),
                data=body,
                headers=headers,
                allow_redirects=False,
                auto_decompress=False,
            ) as answer,
        ):
            status = answer.status
    except TimeoutError:
        error = RejectionCode.FETCH_TIMEOUT
    except UrlRefused:
        error = RejectionCode.FETCH_BLOCKED_ADDRESS
    except (aiohttp.ClientError, UnicodeError) as problem:
        error = rejection_from(problem).code
    return Attempt(round(at * 1000), round((time.monotonic() - started) * 1000), status, error)


def signature(message_id: str, body: bytes, secret: WebhookSecret, now: datetime) -> dict[str, str]:
    """Give the headers of Standard Webhooks, signed with each valid secret."""
    valid = [secret.current, secret.previous] if secret.previous else [secret.current]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(
            Webhook(key).sign(message_id, now, body.decode()) for key in valid
        ),
    }


def next_step(
    status: int | None, attempts_before: int, retry_s: Sequence[float]
) -> tuple[HookState, float]:
    """Give the state after an attempt and, if that is PENDING, the seconds until the next one."""
    if status is not None and 200 <= status < 300:
        return HookState.DELIVERED, 0
    if status == GONE:
        return HookState.GONE, 0
    if attempts_before >= len(retry_s):
        return HookState.GIVEN_UP, 0
    jitter = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads the load, hides nothing
    return HookState.PENDING, retry_s[attempts_before] * jitter
