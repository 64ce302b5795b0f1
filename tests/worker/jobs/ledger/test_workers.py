"""The workers on a real Redis: who counts as alive, and who runs recovery."""

import pytest
from redis import Redis

from worker.jobs.ledger.workers import Workers


@pytest.fixture
def workers(redis_client: Redis) -> Workers:
    return Workers(redis_client)


def test_a_worker_that_stopped_or_sends_no_heartbeat_is_not_alive(
    workers: Workers, redis_client: Redis
) -> None:
    for worker, slots in (("one", 4), ("two", 6), ("three", 8)):
        workers.heartbeat(worker, slots)
    workers.forget("one")
    assert workers.live() == {"two": 6, "three": 8}
    assert 0 < redis_client.ttl("piqueue:worker:two") <= 15
    redis_client.delete("piqueue:worker:two")
    assert workers.live() == {"three": 8}


def test_one_worker_is_elected_recovery_leader_for_each_term(workers: Workers) -> None:
    assert workers.elect_recovery_leader("one", term_s=60)
    assert not workers.elect_recovery_leader("two", term_s=60)
