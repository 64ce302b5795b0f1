"""The state that the threads of one worker process share."""

from contextlib import ExitStack

import pytest
from redis import Redis

from tests.worker.jobs.ledger.test_store import claim, recover_until_due, submit
from worker.jobs.ledger.store import JobStore
from worker.jobs.settings import Settings
from worker.scoring.runtime import Runtime


def test_a_process_keeps_the_newer_of_two_leases_of_a_chunk(
    redis_client: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was frozen loses a lease, and may claim the same chunk before it notices."""
    monkeypatch.setenv("PIQUEUE_REDIS_URL", redis_url)
    runtime, store = Runtime(Settings()), JobStore(redis_client)
    job_id, _ = submit(store, total=10)
    lost = claim(store, job_id, 0, lease_s=0.001)
    recover_until_due(store)
    with ExitStack() as kept:
        with runtime.keep_lease(lost):
            newer = claim(store, job_id, 0)
            kept.enter_context(runtime.keep_lease(newer))
        assert [chunk.claim for chunk in runtime.claimed.values()] == [newer]
    assert not runtime.claimed
    runtime.close()
