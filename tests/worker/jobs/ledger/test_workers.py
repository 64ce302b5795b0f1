"""The workers on a real Redis: who counts as alive."""

import pytest
from redis import Redis

from worker.jobs.ledger.workers import Workers


@pytest.fixture
def workers(redis_client: Redis) -> Workers:
    return Workers(redis_client)


def test_a_worker_that_stopped_or_sends_no_heartbeat_is_not_alive(
    workers: Workers, redis_client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.jobs.ledger.workers.WORKER_SILENT_S", 1500)
    for worker, slots in (("one", 4), ("two", 6), ("three", 8)):
        workers.heartbeat(worker, slots)
    workers.forget("one")
    assert workers.live() == {"two": 6, "three": 8}
    redis_client.zincrby("piqueue:workers", -1_400_000, "two")
    assert workers.live() == {"two": 6, "three": 8}
    redis_client.zincrby("piqueue:workers", -100_001, "two")
    assert workers.live() == {"three": 8}
    workers.heartbeat("three", 8)
    assert redis_client.hkeys("piqueue:slots") == [b"three"], "the heartbeat forgets the dead"


def test_heic_is_read_if_every_live_worker_reads_it(workers: Workers, redis_client: Redis) -> None:
    assert workers.reads_heic(), "no worker says otherwise"
    workers.heartbeat("one", 4)
    assert workers.reads_heic()
    workers.heartbeat("two", 4, reads_heic=False)
    assert not workers.reads_heic()
    redis_client.zincrby("piqueue:workers", -15_001, "two")
    assert workers.reads_heic()
    workers.heartbeat("two", 4, reads_heic=False)
    workers.forget("two")
    assert workers.reads_heic()
    workers.heartbeat("two", 4, reads_heic=False)
    workers.heartbeat("two", 4)
    assert workers.reads_heic(), "it was started again with the package"
    assert not redis_client.exists("piqueue:workers:without_heic")
