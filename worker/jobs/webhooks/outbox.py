"""The webhook outbox: undelivered webhooks of finished jobs, and a log of attempts."""

import json
from dataclasses import astuple, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from redis import Redis

from worker.jobs.ledger.connection import RedisClient
from worker.jobs.ledger.functions import Library
from worker.jobs.ledger.layout import job_key
from worker.jobs.ledger.schedule import Schedule
from worker.jobs.record import Job

# The log of a job keeps this many attempts.
LOGGED_ATTEMPTS = 20
_HOOKS = "piqueue:hooks"
_LUA = Path(__file__).with_name("outbox.lua").read_text()


class HookState(StrEnum):
    """The state of a job's webhook."""

    WAITING = "waiting"  # until the job is done
    PENDING = "pending"
    DELIVERED = "delivered"
    GONE = "gone"  # the receiver answered 410
    GIVEN_UP = "given_up"


@dataclass(frozen=True)
class Delivery:
    """A claimed webhook, with the end of the lease and the number of earlier attempts."""

    job_id: str
    attempts: int
    lease_end_ms: int


@dataclass(frozen=True)
class Attempt:
    """One attempt: its start in ms since 1970, its duration, and a status or an error code."""

    at_ms: int
    took_ms: int
    status: int | None = None
    error: str | None = None


@dataclass(frozen=True)
class HookRecord:
    """The state of a webhook, the time of the next attempt, and the log, newest first.

    During an attempt, `next_ms` is the end of its lease.
    """

    state: HookState
    next_ms: int | None
    log: tuple[Attempt, ...]


class Outbox(RedisClient):
    """Deliveries in Redis; ledger.lua adds one when a job is done."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self._schedule = Schedule(redis, _HOOKS)
        self._library = Library(redis, "outbox", _LUA)

    @staticmethod
    def _keys(job_id: str) -> list[str]:
        return [job_key(job_id, key) for key in ("meta", "webhook", "webhook_log")]

    def _step(self, step: str, job_id: str, *args: str | int) -> Any:
        return self._library.call(step, [job_id, *args], self._keys(job_id))

    def due(self, count: int) -> list[str]:
        """List the jobs of at most `count` due deliveries, the longest due first."""
        return self._schedule.due(count)

    def claim(self, job_id: str, lease_s: float) -> Delivery | None:
        """Claim a delivery for `lease_s`; None if it is claimed, not due or does not exist."""
        answer = self._step("claim", job_id, int(lease_s * 1000))
        if not answer:
            return None
        lease_end_ms, attempts = answer
        return Delivery(job_id, attempts, lease_end_ms)

    def defer(self, delivery: Delivery, delay_s: float) -> None:
        """Release a delivery without an attempt; it is due again after `delay_s`."""
        lease_end_ms, delay_ms = delivery.lease_end_ms, int(delay_s * 1000)
        self._step("defer", delivery.job_id, lease_end_ms, delay_ms)

    def settle(
        self, delivery: Delivery, attempt: Attempt, state: HookState, delay_s: float = 0
    ) -> None:
        """Log an attempt and set the state; if PENDING, the next attempt is due in `delay_s`."""
        logged = (json.dumps(astuple(attempt)), LOGGED_ATTEMPTS)
        delay_ms = int(delay_s * 1000)
        self._step("settle", delivery.job_id, delivery.lease_end_ms, *logged, state, delay_ms)

    def replay(self, job_id: str) -> None:
        """Deliver the webhook of a done job again, now and with all attempts."""
        self._step("replay", job_id)

    def record(self, job: Job) -> HookRecord:
        """Read the state of a job's webhook."""
        _, state_key, log_key = self._keys(job.id)
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.zscore(_HOOKS, job.id)
            pipe.hget(state_key, "state")
            pipe.lrange(log_key, 0, -1)
            next_ms, state, log = pipe.execute()
        return HookRecord(
            _state(job, next_ms, state),
            None if next_ms is None else int(next_ms),
            tuple(Attempt(*json.loads(entry)) for entry in log),
        )


def _state(job: Job, next_ms: float | None, settled: bytes | None) -> HookState:
    if not job.status.done:
        return HookState.WAITING
    if next_ms is not None or settled is None:
        return HookState.PENDING
    return HookState(settled.decode())
