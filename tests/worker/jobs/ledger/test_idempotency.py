"""Idempotency keys, on a real Redis."""

import pytest
from redis import Redis

from tests.scripts.processes import eventually
from tests.worker.jobs.ledger.test_store import MODEL
from worker.jobs.errors import IdempotencyInFlight, LedgerUnavailable
from worker.jobs.items import ItemSpec
from worker.jobs.ledger import idempotency
from worker.jobs.ledger.idempotency import IN_FLIGHT_TTL_S, IdempotencyKeys, Replay
from worker.jobs.ledger.layout import NewJob, Shape
from worker.jobs.ledger.store import JobStore
from worker.jobs.record import Lane, new_job_id


@pytest.fixture
def keys(redis_client: Redis, monkeypatch: pytest.MonkeyPatch) -> IdempotencyKeys:
    """Keys that are renewed often while their submission is in flight."""
    monkeypatch.setattr(idempotency, "_RENEW_EVERY_S", 0.1)
    return IdempotencyKeys(redis_client, ttl_s=60)


def is_free(keys: IdempotencyKeys) -> bool:
    try:
        return keys.begin("alice", "key") is None
    except IdempotencyInFlight:
        return False


def test_a_key_is_claimed_as_long_as_its_submission_lasts(
    keys: IdempotencyKeys, redis_client: Redis
) -> None:
    assert keys.begin("alice", "key") is None
    name = keys._key("alice", "key")
    with keys.renewed("alice", "key"):
        for _ in range(3):
            redis_client.expire(name, IN_FLIGHT_TTL_S // 2)  # as if time had passed
            assert eventually(lambda: left_s(redis_client, name) > IN_FLIGHT_TTL_S / 2)
        assert not is_free(keys)


def test_a_key_whose_process_died_is_soon_free(keys: IdempotencyKeys, redis_client: Redis) -> None:
    assert keys.begin("alice", "key") is None
    name = keys._key("alice", "key")
    assert 0 < left_s(redis_client, name) <= IN_FLIGHT_TTL_S
    assert not is_free(keys)
    redis_client.pexpire(name, 1)
    assert eventually(lambda: is_free(keys))


def left_s(redis: Redis, name: str) -> int:
    """Give the seconds after which a key expires, -1 if it does not."""
    found = redis.ttl(name)
    assert isinstance(found, int)
    return found


def test_a_key_gives_its_job_as_soon_as_the_job_exists(
    keys: IdempotencyKeys, redis_client: Redis
) -> None:
    keys.begin("alice", "key")
    store = JobStore(redis_client)
    job = NewJob(new_job_id(), "alice", MODEL, ttl_s=60)
    extra = keys.entry("alice", "key", "fingerprint", job.id)
    with pytest.raises(LedgerUnavailable, match="submit them again"):
        store.submit(job, Shape(Lane.BULK, 1, 1), extra)
    with pytest.raises(IdempotencyInFlight):
        keys.begin("alice", "key")
    store.put_chunk(job.id, 0, [ItemSpec("0", "http://h/")])
    store.submit(job, Shape(Lane.BULK, 1, 1), extra)

    assert keys.begin("alice", "key") == Replay("fingerprint", job.id)
    assert keys.begin("bob", "key") is None
    assert not store.abandon(job.id), "it is a job although its maker may not have been told"
    keys.release("alice", "key")
    assert keys.begin("alice", "key") == Replay("fingerprint", job.id)
    assert store.job(job.id).counts.total == 1


def test_a_key_whose_submission_failed_is_free_at_once(keys: IdempotencyKeys) -> None:
    keys.begin("alice", "key")
    keys.release("alice", "key")
    assert keys.begin("alice", "key") is None
