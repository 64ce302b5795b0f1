"""Delivers webhooks from the outbox, in a thread of its own beside the scoring."""

import asyncio
import random
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from urllib.parse import urlsplit

import aiohttp
import structlog
from standardwebhooks import Webhook

from worker.fetching.host_slots import HostSlots
from worker.fetching.session import (
    FetchCode,
    FetchLimits,
    UrlRefused,
    explained,
    open_session,
    parse_url,
)
from worker.jobs.errors import JobNotFound, LedgerUnavailable
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.reader import JobReader
from worker.jobs.record import Job
from worker.jobs.settings import Settings
from worker.jobs.webhooks.outbox import Attempt, Delivery, HookState, Outbox
from worker.jobs.webhooks.payload import job_finished, webhook_id
from worker.jobs.webhooks.secrets import WebhookSecret, WebhookSecrets
from worker.scoring.metrics import WorkerMetrics

POLL_S = 0.5
# As long as there is something to do, the outbox is looked at this often.
POLL_BUSY_S = 0.1
# Deliveries one process has under way, and of these to one host; more for it wait their turn.
CONCURRENCY = 32
PER_HOST = 8
# A lease outlives the attempt by this long, for what comes before and after the request.
LEASE_MARGIN_S = 10
# What is under way when the worker stops may take this long.
GRACE_S = 5
JITTER = 0.2
GONE = 410
HEADERS = {
    "User-Agent": "Piqueue (webhooks)",
    "Accept": "*/*",
    "Content-Type": "application/json",
}

log = structlog.get_logger()


class WebhookSender:
    """Posts what is due until stopped; whatever happens to it, the outbox keeps the rest."""

    def __init__(self, settings: Settings, metrics: WorkerMetrics) -> None:
        redis = connect(settings.redis_url, retry_silence=True)
        self._settings = settings
        self._metrics = metrics
        self._jobs = JobReader(redis)
        self._outbox = Outbox(redis)
        self._secrets = WebhookSecrets(redis)
        self._turns = HostSlots(PER_HOST)
        self._under_way: dict[str, asyncio.Task[None]] = {}
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._deliver_forever()), name="webhooks", daemon=True
        )

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Begin no further attempt, and give those under way a few seconds."""
        self._stopping.set()
        self._thread.join(POLL_S + GRACE_S + 1)

    async def _deliver_forever(self) -> None:
        # Redis is asked, and names are looked up, in threads: one of each a delivery.
        executor = ThreadPoolExecutor(2 * CONCURRENCY, "webhook")
        asyncio.get_running_loop().set_default_executor(executor)
        limits = FetchLimits(
            timeout_s=self._settings.webhook_timeout_s,
            max_bytes=0,
            concurrency=CONCURRENCY,
            per_host=PER_HOST,
            allow_networks=self._settings.fetch_allow_networks,
        )
        async with open_session(limits) as session:
            while not self._stopping.is_set():
                due = await self._due(CONCURRENCY - len(self._under_way))
                for job_id in due:
                    if job_id not in self._under_way:
                        task = asyncio.create_task(self._deliver(session, job_id), name=job_id)
                        self._under_way[job_id] = task
                        task.add_done_callback(self._ended)
                await asyncio.sleep(POLL_BUSY_S if due else POLL_S)
            if self._under_way:
                await asyncio.wait(self._under_way.values(), timeout=GRACE_S)

    async def _due(self, count: int) -> list[str]:
        if count == 0:
            return []
        try:
            return await asyncio.to_thread(self._outbox.due, count)
        except LedgerUnavailable as error:
            log.warning("outbox_away", reason=str(error))
            return []

    def _ended(self, task: asyncio.Task[None]) -> None:
        """Note how a task broke, by its kind alone: the text could hold the URL."""
        del self._under_way[task.get_name()]
        if not task.cancelled() and (error := task.exception()):
            log.error("webhook_broke", job_id=task.get_name(), kind=type(error).__name__)

    async def _deliver(self, session: aiohttp.ClientSession, job_id: str) -> None:
        """Make one attempt, if the delivery is ours to make and its host is not busy."""
        taken = await asyncio.to_thread(self._take, job_id)
        if taken is None:
            return
        delivery, job, secret = taken
        host = urlsplit(job.webhook_url or "").hostname or ""
        if wait_s := self._turns.wait_s(host, time.monotonic()):
            await asyncio.to_thread(self._outbox.postpone, delivery, wait_s)
            return
        with self._turns.place(host):
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

    def _take(self, job_id: str) -> tuple[Delivery, Job, WebhookSecret] | None:
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
    """Send the event of a finished job once; of the answer nothing but the status is read."""
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
        error = FetchCode.TIMEOUT
    except UrlRefused:
        error = FetchCode.BLOCKED_ADDRESS
    except (aiohttp.ClientError, UnicodeError) as problem:
        error = explained(problem).code
    return Attempt(round(at * 1000), round((time.monotonic() - started) * 1000), status, error)


def signature(message_id: str, body: bytes, secret: WebhookSecret, now: datetime) -> dict[str, str]:
    """Give the headers of Standard Webhooks, signed with every secret that is good now."""
    good = [secret.current, secret.previous] if secret.previous else [secret.current]
    return {
        "webhook-id": message_id,
        "webhook-timestamp": str(int(now.timestamp())),
        "webhook-signature": " ".join(
            Webhook(key).sign(message_id, now, body.decode()) for key in good
        ),
    }


def next_step(
    status: int | None, attempts_before: int, retry_s: Sequence[float]
) -> tuple[HookState, float]:
    """Say what an attempt leads to and, while that is PENDING, in how many seconds to try again."""
    if status is not None and 200 <= status < 300:
        return HookState.DELIVERED, 0
    if status == GONE:
        return HookState.GONE, 0
    if attempts_before >= len(retry_s):
        return HookState.GIVEN_UP, 0
    vary = random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - spreads the load, hides nothing
    return HookState.PENDING, retry_s[attempts_before] * vary
