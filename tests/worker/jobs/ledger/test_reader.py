"""Reading jobs from a real Redis."""

import time
from itertools import islice
from typing import Any

import pytest
from redis import Redis

from tests.worker.jobs.ledger.test_ready import serve, submit
from tests.worker.jobs.ledger.test_store import MODEL, REJECTED
from worker.jobs.errors import JobNotFound
from worker.jobs.items import ItemResult, ItemSpec
from worker.jobs.ledger.layout import NewJob, Shape
from worker.jobs.ledger.reader import LIST_READ
from worker.jobs.ledger.store import EVENTS_CHANNEL, JobStore
from worker.jobs.record import JobStatus, Lane, new_job_id


@pytest.fixture
def store(redis_client: Redis) -> JobStore:
    return JobStore(redis_client)


@pytest.mark.parametrize("status", [None, JobStatus.QUEUED])
def test_a_list_is_read_a_page_at_a_time(
    store: JobStore, redis_client: Redis, status: JobStatus | None
) -> None:
    ids = [submit(store, "a", 1) for _ in range(2 * LIST_READ + 1)]
    submit(store, "b", 1)

    def commands() -> int:
        return int(redis_client.info("stats")["total_reads_processed"])

    before = commands()
    page = list(islice(store.jobs("a", status=status), LIST_READ))
    assert commands() - before < LIST_READ / 10, "a page is not read job by job"
    assert [job.id for job in page] == ids[: -LIST_READ - 1 : -1]
    assert [job.id for job in store.jobs("a", page[-1].id, status)] == ids[LIST_READ::-1]
    assert [job.id for job in store.jobs("a", status=status, step=7)] == ids[::-1]


def test_a_list_leaves_out_jobs_that_expired_or_have_another_status(
    store: JobStore, redis_client: Redis
) -> None:
    ids = [submit(store, "a", 1) for _ in range(4)]
    redis_client.hset(f"piqueue:{{{ids[2]}}}:meta", "expires_ms", int(time.time() * 1000))
    assert [job.id for job in store.jobs("a")] == [ids[3], ids[1], ids[0]]
    for read in (store.job, store.job_and_results):
        with pytest.raises(JobNotFound, match=ids[2]):
            read(ids[2])
    serve(store, 1)
    assert [job.id for job in store.jobs("a", status=JobStatus.SUCCEEDED)] == [ids[0]]
    assert [job.id for job in store.jobs("a", status=JobStatus.QUEUED)] == [ids[3], ids[1]]


def test_a_draft_that_was_cancelled_is_a_job_without_results(store: JobStore) -> None:
    draft = NewJob(new_job_id(), "a", MODEL, ttl_s=60)
    store.open_draft(draft)
    store.reserve(draft.id, [("1", b"print", b"")])
    store.add(draft.id, [(b"print", ItemSpec("1", "http://h/1"))], 10, 0)
    store.cancel(draft.id)
    found = store.job_and_results(draft.id)
    assert (found.status, list(found.results)) == (JobStatus.CANCELLED, [])


def test_an_unlisted_job_is_read_by_its_id_alone(store: JobStore, redis_client: Redis) -> None:
    job = NewJob(new_job_id(), "a", MODEL, ttl_s=60, listed=False)
    store.put_chunk(job.id, 0, [ItemSpec("1", "http://h/1")])
    store.submit(job, Shape(Lane.INTERACTIVE, 1, 1))
    assert list(store.jobs("a")) == []
    (claim,) = store.claim_next(30, 0.2)
    store.commit(claim, [ItemResult(scores=(0.5, 0.5))])
    assert list(store.jobs("a")) == []
    assert store.job(job.id).status is JobStatus.SUCCEEDED
    assert not redis_client.keys("piqueue:jobs:*")
    redis_client.zadd("piqueue:expiries", {f"expire {job.id} a": 1}, xx=True)
    store.recover()
    assert not redis_client.keys(f"*{job.id}*")


@pytest.mark.parametrize("result", [ItemResult(scores=(0.25, 0.5)), REJECTED])
def test_the_event_of_the_end_of_one_item_is_all_that_its_submitter_reads(
    store: JobStore, redis_client: Redis, result: ItemResult
) -> None:
    job = NewJob(new_job_id(), "a", MODEL, 60, awaited=True, metadata={"text": "a\nb c"})
    pubsub: Any = redis_client.pubsub  # redis-py does not annotate it
    with pubsub() as events:
        events.subscribe(EVENTS_CHANNEL)
        assert events.get_message(timeout=30)["type"] == "subscribe"
        store.submit(job, Shape(Lane.BULK, 1, 1), chunks={0: [ItemSpec("\n", "http://h/")]})
        (claim,) = store.claim_next(30, 0.2)
        store.commit(claim, [result])
        received = (events.get_message(timeout=5) for _ in range(9))
        told = list(islice((message["data"] for message in received if message), 2))
    assert [event.split()[:2] for event in told] == [
        [job.id.encode(), status]
        for status in (b"running", b"failed" if result is REJECTED else b"succeeded")
    ]
    assert store.ended_job(told[0]) is None
    ended, stored = store.ended_job(told[1]), store.job_and_results(job.id)
    assert ended is not None
    assert ended[:2] == stored[:2]
    assert list(ended.results) == list(stored.results)
    assert JobStore(redis_client).ended_job(told[1]) is None, "its model card must be read"


@pytest.mark.parametrize("total", [40, 400])
def test_the_items_of_finished_chunks_are_read_without_those_that_were_cancelled(
    store: JobStore, total: int
) -> None:
    job_id = submit(store, "a", total)
    serve(store, 3)
    store.cancel(job_id)
    job = store.job(job_id)
    found = list(store.finished_specs(job))
    assert found == [(stored.index, stored.spec) for stored in store.results(job)]
    assert len(found) == 30
