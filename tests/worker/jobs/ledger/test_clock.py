"""The clock of the ledger on a real Redis whose clock steps back.

The tests move the times in Redis an hour ahead, which is what a step back by an hour looks like.
"""

import time
from typing import Any

from redis import Redis

from tests.worker.jobs.ledger.test_store import claim, submit
from worker.jobs.ledger.schedule import Schedule
from worker.jobs.ledger.store import JobStore
from worker.jobs.ledger.workers import WORKER_SILENT_S, Workers

HOUR_MS = 3_600_000
# The ledger notes the time of Redis this often, so a step back may cost as much.
TICK_S = 1.0


def pass_time(redis: Any, seconds: float) -> None:
    """Let time pass for the ledger at once."""
    redis.hincrby("piqueue:clock", "offset", int(seconds * 1000))


def step_back(redis: Any) -> None:
    """Make the clock of Redis an hour slower than all that it told before."""
    for key in ("piqueue:due", "piqueue:expiries", "piqueue:workers", "piqueue:scheduled"):
        for member in redis.zrange(key, 0, -1):
            redis.zincrby(key, HOUR_MS, member)
    redis.hincrby("piqueue:clock", "last", HOUR_MS)


def test_leases_and_schedules_end_in_time_although_the_clock_of_redis_steps_back(
    redis_client: Redis,
) -> None:
    store, schedule = JobStore(redis_client), Schedule(redis_client, "piqueue:scheduled")
    job_id, _ = submit(store, total=10)
    claim(store, job_id, 0, lease_s=30)
    schedule.put("job", 30)
    step_back(redis_client)
    assert (store.recover(), schedule.due(1)) == ([], []), "not before their time"
    pass_time(redis_client, 30 + TICK_S)
    assert store.recover() == [f"lease {job_id} 0 10 1"]
    assert schedule.due(1) == ["job"]
    assert claim(store, job_id, 0).attempt == 2


def test_a_dead_worker_is_known_although_the_clock_of_redis_steps_back(
    redis_client: Redis,
) -> None:
    workers = Workers(redis_client)
    workers.heartbeat("dead", 4)
    step_back(redis_client)
    workers.heartbeat("alive", 4)
    assert workers.live() == {"dead": 4, "alive": 4}
    pass_time(redis_client, WORKER_SILENT_S)
    workers.heartbeat("alive", 4)
    pass_time(redis_client, TICK_S)
    assert workers.live() == {"alive": 4}


def test_the_times_that_people_see_are_those_of_the_clock(redis_client: Redis) -> None:
    store = JobStore(redis_client)
    submit(store, total=10)
    step_back(redis_client)
    job_id, _ = submit(store, total=10)
    assert abs(store.job(job_id).created_ms / 1000 - time.time()) < 60
