"""Redis ends, hangs, fills up or drops connections in the middle of a job; the job continues."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import httpx2
import pytest
from redis import Redis
from redis.exceptions import ResponseError

from piqueue import Client
from scripts.faults.fault_injectors import FAULTS, disk_full, memory_full, redis_of
from scripts.local.stack import Stack
from tests.faults.conftest import BOUND_S, SLOW_S, RunTrial
from tests.scripts.processes import eventually


@pytest.mark.parametrize(
    "name", ["stop-redis", "kill-redis", "truncate-aof", "pause-redis", "reset-connections"]
)
def test_a_job_survives_an_outage_of_redis(
    name: str, fault_stack: Stack, run_trial: RunTrial
) -> None:
    workers = fault_stack.workers
    with run_trial(400, delay_s=SLOW_S) as trial:
        trial.observer.wait_finished(100)
        FAULTS[name].inject(fault_stack)
        assert trial.observer.finished < 400, "the job was done before the fault ended"
        tally = trial.tally()
        assert trial.observer.longest_stall_s() < BOUND_S
    assert tally.balanced, tally
    assert not tally.rejected
    assert fault_stack.workers == workers, "workers survive it"


@pytest.mark.parametrize("full", [memory_full, disk_full])
def test_a_full_redis_is_reported_and_waited_for(
    full: Callable[[Stack], AbstractContextManager[None]], fault_stack: Stack, run_trial: RunTrial
) -> None:
    workers = fault_stack.workers
    with (
        run_trial(400, delay_s=SLOW_S) as trial,
        httpx2.Client(base_url=fault_stack.url, timeout=30) as http,
    ):
        trial.observer.wait_finished(100)
        with full(fault_stack):
            with redis_of(fault_stack) as redis:
                assert eventually(lambda: refuses_writes(redis))
            refused = [
                http.post("/jobs", json={"urls": ["http://127.0.0.1:9/"]}),
                http.post("/jobs", json={"draft": True}),
            ]
            read = http.get(f"/jobs/{trial.job.id}")
            began = time.monotonic()
            assert eventually(lambda: trial.observer.longest_stall_s(began) > 3), (
                "items are still scored"
            )
        assert read.status_code == 200, "jobs can still be read"
        for answer in refused:
            assert answer.status_code == 503, answer.text
            assert answer.json()["code"] in ("queue_full", "ledger_full")
            assert int(answer.headers["retry-after"]) > 0
        tally = trial.tally()
        assert trial.observer.longest_stall_s() < BOUND_S
        assert http.post("/jobs", json={"draft": True}).status_code == 201
    assert tally.balanced, tally
    assert not tally.rejected
    assert fault_stack.workers == workers, "workers survive it"


def refuses_writes(redis: Redis) -> bool:
    """Whether a write was refused; a disk is known to be full only after a write has failed."""
    try:
        redis.set("probe", 1)
    except ResponseError:
        return True
    return False


def test_while_redis_memory_is_full_jobs_can_be_cancelled_and_deleted(
    fault_stack: Stack, fault_client: Client
) -> None:
    with redis_of(fault_stack) as redis:
        assert eventually(lambda: not redis.hexists("piqueue:counts", "*"), 60), "others' items"
        jobs = [fault_client.submit_urls(["http://127.0.0.1:9/"] * 1000) for _ in range(2)]
        with memory_full(fault_stack):
            fault_client.cancel(jobs[0].id)
            for job in jobs:
                fault_client.delete(job.id)
        assert eventually(lambda: not redis.hexists("piqueue:counts", "*"))
        for job in jobs:
            assert not redis.keys(f"*{job.id}*")
