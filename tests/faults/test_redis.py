"""Redis ends, hangs, fills up or hangs up in the middle of a job; work goes on where it stood."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import httpx2
import pytest

from piqueue.client import Client
from scripts.faults.injectors import FAULTS, disk_full, memory_full, redis_of
from scripts.local.stack import Stack
from tests.faults.conftest import BOUND_S, Trying
from tests.scripts.processes import eventually


@pytest.mark.parametrize("name", ["stop-redis", "kill-redis", "pause-redis", "reset-connections"])
def test_a_job_survives_what_happens_to_redis(name: str, hurt_stack: Stack, trying: Trying) -> None:
    workers = hurt_stack.workers
    with trying(400) as trial:
        trial.watch.until(100)
        FAULTS[name].inject(hurt_stack)
        assert trial.watch.finished < 400, "the job was done before the fault was over"
        found = trial.account()
        assert trial.watch.longest_stall_s() < BOUND_S
    assert found.balanced, found
    assert not found.rejected
    assert hurt_stack.workers == workers, "workers outlive it"


@pytest.mark.parametrize("full", [memory_full, disk_full])
def test_a_full_redis_is_told_and_waited_for(
    full: Callable[[Stack], AbstractContextManager[None]], hurt_stack: Stack, trying: Trying
) -> None:
    workers = hurt_stack.workers
    with (
        trying(400) as trial,
        httpx2.Client(base_url=hurt_stack.url, timeout=30) as http,
    ):
        trial.watch.until(100)
        with full(hurt_stack):
            refused = [
                http.post("/jobs", json={"urls": ["http://127.0.0.1:9/"]}),
                http.post("/jobs", json={"draft": True}),
            ]
            read = http.get(f"/jobs/{trial.job.id}")
            began = time.monotonic()
            assert eventually(lambda: trial.watch.longest_stall_s(began) > 3), "work goes on"
        assert read.status_code == 200, "what is there can be read"
        for answer in refused:
            assert answer.status_code == 503, answer.text
            assert answer.json()["code"] in ("queue_full", "ledger_full")
            assert int(answer.headers["retry-after"]) > 0
        found = trial.account()
        assert trial.watch.longest_stall_s() < BOUND_S
        assert http.post("/jobs", json={"draft": True}).status_code == 201
    assert found.balanced, found
    assert not found.rejected
    assert hurt_stack.workers == workers, "workers outlive it"


def test_while_its_memory_is_full_jobs_can_be_cancelled_and_deleted(
    hurt_stack: Stack, hurt_client: Client
) -> None:
    jobs = [hurt_client.submit_urls(["http://127.0.0.1:9/"] * 1000) for _ in range(2)]
    with memory_full(hurt_stack):
        hurt_client.cancel(jobs[0].id)
        for job in jobs:
            hurt_client.delete(job.id)
    with redis_of(hurt_stack) as redis:
        assert eventually(lambda: redis.hget("piqueue:backlog", "*") == b"0")
        for job in jobs:
            assert not redis.keys(f"*{job.id}*")
