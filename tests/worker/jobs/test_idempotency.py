"""Idempotency keys, on a real Redis."""

import time

import pytest
from redis import Redis

from tests.scripts.processes import eventually
from worker.jobs import idempotency
from worker.jobs.errors import IdempotencyInFlight
from worker.jobs.idempotency import IdempotencyKeys, Replay


@pytest.fixture
def keys(redis_client: Redis, monkeypatch: pytest.MonkeyPatch) -> IdempotencyKeys:
    """Keys of submissions in flight that are forgotten after a second."""
    monkeypatch.setattr(idempotency, "IN_FLIGHT_TTL_S", 1)
    monkeypatch.setattr(idempotency, "_RENEW_EVERY_S", 0.1)
    return IdempotencyKeys(redis_client, ttl_s=60)


def is_free(keys: IdempotencyKeys) -> bool:
    try:
        return keys.begin("alice", "key") is None
    except IdempotencyInFlight:
        return False


def test_a_key_is_held_as_long_as_its_submission_lasts(keys: IdempotencyKeys) -> None:
    assert keys.begin("alice", "key") is None
    with keys.held("alice", "key"):
        assert not eventually(lambda: is_free(keys), deadline_s=2)


def test_a_key_whose_holder_died_is_free_soon(keys: IdempotencyKeys) -> None:
    started = time.monotonic()
    assert keys.begin("alice", "key") is None
    assert not is_free(keys)
    assert eventually(lambda: is_free(keys))
    assert time.monotonic() - started < 10


def test_a_finished_key_gives_its_job(keys: IdempotencyKeys) -> None:
    keys.begin("alice", "key")
    with keys.held("alice", "key"):
        pass
    keys.finish("alice", "key", Replay("fingerprint", "job_1"))
    assert keys.begin("alice", "key") == Replay("fingerprint", "job_1")
    assert keys.begin("bob", "key") is None
