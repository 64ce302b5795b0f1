"""Recovery on a real Redis and a real queue."""

from redis import Redis

from tests.worker.jobs.ledger.test_store import claim, submit
from worker.jobs.ledger.store import RECOVERED_AT_ONCE, JobStore
from worker.upkeep.recovery import recover_stalled_work


def test_a_lost_wake_up_is_sent_again_and_no_more_than_workers_have_slots(
    redis_client: Redis,
) -> None:
    store = JobStore(redis_client)
    recover_stalled_work(store)
    assert redis_client.llen("piqueue:wake-ups") == 0
    submit(store, total=400)
    redis_client.delete("piqueue:wake-ups")
    for _ in range(3):
        recover_stalled_work(store)
        assert redis_client.llen("piqueue:wake-ups") == 4


def test_all_that_is_due_is_done_in_one_run(redis_client: Redis) -> None:
    store = JobStore(redis_client)
    count = 2 * RECOVERED_AT_ONCE + 1
    job_id, chunks = submit(store, total=count, chunk_items=1)
    for chunk in chunks:
        claim(store, job_id, chunk)
        redis_client.zadd("piqueue:due", {f"lease {job_id} {chunk} 1 1": 2})
    # These are due before the leases.
    expired = [submit(store, total=1)[0] for _ in range(count)]
    redis_client.zadd("piqueue:expiries", {f"expire {one} anyone": 1 for one in expired}, xx=True)
    recover_stalled_work(store)
    counts = store.job(job_id).counts
    assert (counts.running, counts.waiting) == (0, count)
    assert [job.id for job in store.jobs("anyone")] == [job_id]
    assert len(redis_client.keys("piqueue:{*}:meta")) == 1


def test_leases_do_not_wait_for_jobs_that_expired_before_them(redis_client: Redis) -> None:
    store = JobStore(redis_client)
    job_id, _ = submit(store, total=1)
    claim(store, job_id, 0)
    redis_client.zadd("piqueue:due", {f"lease {job_id} 0 1 1": 2})
    expired = [submit(store, total=1)[0] for _ in range(RECOVERED_AT_ONCE)]
    redis_client.zadd("piqueue:expiries", {f"expire {one} anyone": 1 for one in expired}, xx=True)
    assert store.recover()[0] == f"lease {job_id} 0 1 1"
    assert store.recover() == [f"expire {expired[-1]} anyone"]


def test_expiries_among_the_leases_as_earlier_versions_put_them_end_too(
    redis_client: Redis,
) -> None:
    store = JobStore(redis_client)
    expired = [submit(store, total=1)[0] for _ in range(2 * RECOVERED_AT_ONCE)]
    redis_client.zadd("piqueue:due", {f"expire {one} anyone": 1 for one in expired})
    recover_stalled_work(store)
    assert list(store.jobs("anyone")) == []
    assert not redis_client.exists("piqueue:due")
    assert not redis_client.exists("piqueue:expiries")
