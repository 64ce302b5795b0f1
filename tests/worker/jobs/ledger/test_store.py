"""The ledger on a real Redis: claims, leases, commits, windows, counts and final states."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path

import pytest
from redis import Redis

from worker.jobs.errors import JobNotDraft, JobNotFound, TooLarge
from worker.jobs.items import ItemResult, ItemSpec, Rejection, RejectionCode, Stage
from worker.jobs.ledger.claims import Claim
from worker.jobs.ledger.layout import NewJob, Shape
from worker.jobs.ledger.load import Load
from worker.jobs.ledger.store import IdState, JobStore
from worker.jobs.ledger.workers import Workers
from worker.jobs.models.catalog import ModelCard
from worker.jobs.record import Job, JobStatus, Lane, new_job_id

MODEL = ModelCard(
    name="scenes",
    version="1",
    sha256="ab" * 32,
    labels=("beach", "city"),
    thresholds=(0.5, 0.5),
    memory_bytes=20_000_000,
    created=date(2026, 1, 1),
)
REJECTED = ItemResult(
    rejection=Rejection(RejectionCode.NOT_AN_IMAGE, Stage.DECODE, False, "not a picture")
)


@pytest.fixture
def store(redis_client: Redis) -> JobStore:
    return JobStore(redis_client)


@pytest.fixture
def load(redis_client: Redis) -> Load:
    return Load(redis_client)


def submit(store: JobStore, total: int, chunk_items: int = 10) -> tuple[str, list[int]]:
    job = NewJob(new_job_id(), "anyone", MODEL, ttl_s=3600)
    specs = [ItemSpec(f"id-{index}", f"http://h/{index}") for index in range(total)]
    for chunk, start in enumerate(range(0, total, chunk_items)):
        store.put_chunk(job.id, chunk, specs[start : start + chunk_items])
    return job.id, store.submit(job, Shape(Lane.BULK, total, chunk_items))


def claim(store: JobStore, job_id: str, chunk: int, lease_s: float = 30) -> Claim:
    taken = store.claim(job_id, chunk, lease_s)
    assert taken is not None
    return taken


def scored(taken: Claim) -> list[ItemResult]:
    """Give each item of a chunk a score that tells its index."""
    first = taken.first_index
    return [ItemResult(scores=((first + at) / 1000, 0.5)) for at in range(len(taken.specs))]


def finish(store: JobStore, job_id: str, chunks: Sequence[int]) -> Job:
    """Claim chunks as their notifications arrive, the last first, until none remain."""
    waiting = list(chunks)
    while waiting:
        taken = claim(store, job_id, waiting.pop())
        waiting += store.commit(taken, scored(taken)) or []
    return store.job(job_id)


def assert_counts_add_up(job: Job) -> None:
    counts = job.counts
    assert (
        counts.waiting + counts.running + counts.succeeded + counts.failed + counts.cancelled
        == counts.total
    )
    assert min(counts.waiting, counts.running, counts.cancelled) >= 0


def test_a_job_whose_chunks_finish_in_any_order_gives_each_item_its_own_scores(
    store: JobStore,
) -> None:
    job_id, chunks = submit(store, total=95)
    job = finish(store, job_id, chunks)

    assert job.status is JobStatus.SUCCEEDED
    results = list(store.results(job))
    assert [result.index for result in results] == list(range(95))
    assert [result.spec.id for result in results] == [f"id-{index}" for index in range(95)]
    assert [(result.result.scores or ())[0] for result in results] == [
        index / 1000 for index in range(95)
    ]


def test_a_chunk_delivered_twice_counts_once(store: JobStore) -> None:
    job_id, _ = submit(store, total=20)
    taken = claim(store, job_id, 0)
    assert store.claim(job_id, 0, 30) is None, "leased by another worker"
    store.commit(taken, scored(taken))
    assert store.claim(job_id, 0, 30) is None, "done"
    assert store.commit(taken, [REJECTED] * 10) is None

    counts = store.job(job_id).counts
    assert (counts.succeeded, counts.failed, counts.waiting) == (10, 0, 10)


def test_the_first_of_two_workers_that_both_scored_a_chunk_wins(store: JobStore) -> None:
    job_id, _ = submit(store, total=10)
    slow = claim(store, job_id, 0, lease_s=0.001)
    _, chunks = recover_until_notified(store, job_id)
    assert chunks == [0]
    fast = claim(store, job_id, 0)
    store.commit(fast, [REJECTED] * 10)
    assert store.commit(slow, scored(slow)) is None

    job = store.job(job_id)
    assert job.status is JobStatus.FAILED
    assert job.failures == {"not_an_image": 10}


def recover_until_notified(store: JobStore, job_id: str) -> tuple[Lane, list[int]]:
    """Run recovery until a lease of a millisecond has run out."""
    while True:
        lane, chunks = store.recover(job_id, lost_after_s=60)
        if chunks:
            return lane, chunks


def test_only_the_owner_of_a_lease_can_renew_it(store: JobStore) -> None:
    job_id, _ = submit(store, total=10)
    first = claim(store, job_id, 0, lease_s=0.001)
    recover_until_notified(store, job_id)
    assert not store.renew(first, 30), "its lease was taken away"
    second = claim(store, job_id, 0)
    assert second.attempt == 2
    assert store.renew(second, 30)
    assert not store.renew(first, 30), "it is another's now"


def test_at_most_a_window_of_chunks_is_notified_or_leased(store: JobStore) -> None:
    job_id, chunks = submit(store, total=1000)
    assert chunks == [0, 1, 2, 3]
    taken = claim(store, job_id, 1)
    assert store.commit(taken, scored(taken)) == [4]


def test_the_window_grows_with_the_workers(store: JobStore, redis_client: Redis) -> None:
    workers = Workers(redis_client)
    workers.heartbeat("one", slots=4)
    workers.heartbeat("two", slots=6)
    _, chunks = submit(store, total=1000)
    assert len(chunks) == 20


def test_a_lost_notification_is_sent_again(store: JobStore, redis_client: Redis) -> None:
    job_id, chunks = submit(store, total=40)
    claim(store, job_id, chunks[0])
    assert store.recover(job_id, lost_after_s=30) == (Lane.BULK, []), "not yet"
    notified = f"piqueue:{{{job_id}}}:notified"
    for chunk in chunks[1:]:
        redis_client.zincrby(notified, -30_000, chunk)
    assert store.recover(job_id, lost_after_s=60) == (Lane.BULK, [])
    assert store.recover(job_id, lost_after_s=30) == (Lane.BULK, chunks[1:])
    assert store.recover(job_id, lost_after_s=30) == (Lane.BULK, []), "notified a moment ago"


def test_an_item_at_which_two_attempts_died_is_quarantined(store: JobStore) -> None:
    job_id, _ = submit(store, total=10)
    claim(store, job_id, 0, lease_s=0.001)
    recover_until_notified(store, job_id)
    lost = []
    for positions in ((6, 7), (9,), (9,), (7,), ()):
        claimed = claim(store, job_id, 0, lease_s=0.1)
        for position in positions:
            store.checkpoint(claimed, position)
        lost.append(claimed.quarantined)
        recover_until_notified(store, job_id)
    assert lost == [set(), set(), set(), {9}, {7, 9}]


def test_a_chunk_whose_attempts_die_without_a_checkpoint_is_exhausted(store: JobStore) -> None:
    job_id, _ = submit(store, total=10)
    for _ in range(6):
        assert not claim(store, job_id, 0, lease_s=0.001).exhausted
        recover_until_notified(store, job_id)
    assert claim(store, job_id, 0).exhausted


@pytest.mark.parametrize(
    ("failed", "status"),
    [
        (0, JobStatus.SUCCEEDED),
        (3, JobStatus.PARTIALLY_SUCCEEDED),
        (10, JobStatus.FAILED),
    ],
)
def test_the_last_chunk_sets_the_final_status(
    store: JobStore, load: Load, failed: int, status: JobStatus
) -> None:
    job_id, _ = submit(store, total=10)
    taken = claim(store, job_id, 0)
    assert store.job(job_id).status is JobStatus.RUNNING
    store.commit(taken, [REJECTED] * failed + scored(taken)[failed:])
    job = store.job(job_id)
    assert job.status is status
    assert job.finished_ms is not None
    assert store.open_jobs() == []
    assert load.backlog() == 0


def test_counts_add_up_at_every_step(store: JobStore) -> None:
    job_id, chunks = submit(store, total=35)
    assert_counts_add_up(store.job(job_id))
    claims = [claim(store, job_id, chunk) for chunk in chunks]
    job = store.job(job_id)
    assert job.counts.running == 35
    for taken in claims:
        store.commit(taken, [REJECTED, *scored(taken)[1:]])
        assert_counts_add_up(store.job(job_id))
    assert store.job(job_id).counts.failed == 4


def test_the_backlog_counts_the_items_of_all_jobs(store: JobStore, load: Load) -> None:
    first, _ = submit(store, total=25)
    second, _ = submit(store, total=5)
    taken = claim(store, first, 0)
    store.commit(taken, scored(taken))
    assert load.backlog() == 20
    store.erase(second)
    assert load.backlog() == 15
    store.cancel(first)
    assert load.backlog() == 0


def test_cancelling_lets_leased_chunks_finish_and_stops_the_others(store: JobStore) -> None:
    job_id, chunks = submit(store, total=100)
    leased = claim(store, job_id, chunks[0])
    store.cancel(job_id)
    assert store.job(job_id).status is JobStatus.CANCELLING
    assert store.claim(job_id, chunks[1], 30) is None
    assert store.commit(leased, scored(leased)) == []

    job = store.job(job_id)
    assert job.status is JobStatus.CANCELLED
    assert (job.counts.succeeded, job.counts.cancelled) == (10, 90)
    assert len(list(store.results(job))) == 10


def test_a_cancelled_job_whose_worker_died_still_ends(store: JobStore) -> None:
    job_id, chunks = submit(store, total=100)
    claim(store, job_id, chunks[0], lease_s=0.001)
    store.cancel(job_id)
    while store.job(job_id).status is JobStatus.CANCELLING:
        assert store.recover(job_id, lost_after_s=60)[1] == []
    assert store.job(job_id).status is JobStatus.CANCELLED


def test_a_job_that_is_done_cannot_be_cancelled(store: JobStore) -> None:
    job_id, chunks = submit(store, total=10)
    finish(store, job_id, chunks)
    store.cancel(job_id)
    assert store.job(job_id).status is JobStatus.SUCCEEDED


def test_an_erased_job_leaves_nothing_and_takes_no_results(
    store: JobStore, redis_client: Redis
) -> None:
    job_id, chunks = submit(store, total=10)
    taken = claim(store, job_id, chunks[0])
    store.erase(job_id)
    store.commit(taken, scored(taken))
    assert redis_client.keys(f"*{job_id}*") == []
    with pytest.raises(JobNotFound, match=job_id):
        store.job(job_id)
    with pytest.raises(JobNotFound, match=job_id):
        store.erase(job_id)


def test_all_keys_of_a_job_expire_with_it(store: JobStore, redis_client: Redis) -> None:
    job_id, chunks = submit(store, total=100)
    taken = claim(store, job_id, chunks[0])
    store.commit(taken, scored(taken))
    second = claim(store, job_id, chunks[1])
    store.checkpoint(second, 0)
    keys = list(redis_client.scan_iter(f"*{job_id}*"))
    assert len(keys) == 9
    for key in keys:
        assert 3590 < redis_client.ttl(key) <= 3600, key


def test_a_job_that_expired_unfinished_leaves_the_backlog(
    store: JobStore, load: Load, redis_client: Redis
) -> None:
    job_id, _ = submit(store, total=100)
    redis_client.delete(f"piqueue:{{{job_id}}}:meta")
    assert store.recover(job_id, lost_after_s=60) == (Lane.BULK, [])
    assert load.backlog() == 0
    assert store.open_jobs() == []


def test_a_submission_that_is_repeated_by_a_retry_counts_once(store: JobStore, load: Load) -> None:
    job = NewJob(new_job_id(), "anyone", MODEL, ttl_s=3600)
    shape = Shape(Lane.BULK, total=10, chunk_items=10)
    store.put_chunk(job.id, 0, [ItemSpec(str(index), "http://h/") for index in range(10)])
    assert store.submit(job, shape) == store.submit(job, shape) == [0]
    assert load.backlog() == 10


def test_a_commit_needs_one_result_for_each_item(store: JobStore) -> None:
    job_id, _ = submit(store, total=10)
    taken = claim(store, job_id, 0)
    with pytest.raises(ValueError, match="9 results for 10 items"):
        store.commit(taken, scored(taken)[:9])


def test_a_job_keeps_its_name_metadata_and_model(store: JobStore) -> None:
    metadata = {"order": 7, "tags": ["a", None], "höhe": 1.5}
    job = NewJob(new_job_id(), "me", MODEL, ttl_s=60, name="März", metadata=metadata)
    store.put_chunk(job.id, 0, [ItemSpec("a", "http://h/", columns={"price": "9.90"})])
    store.submit(job, Shape(Lane.INTERACTIVE, total=1, chunk_items=1))
    read = store.job(job.id)
    assert (read.name, read.metadata, read.lane) == ("März", metadata, Lane.INTERACTIVE)
    assert read.model.sha256 == MODEL.sha256
    assert store.model(job.id) == MODEL


def test_reading_a_job_costs_the_same_for_any_number_of_items(
    store: JobStore, redis_client: Redis
) -> None:
    sizes = []
    for total in (10, 20_000):
        job_id, _ = submit(store, total)
        sizes.append(redis_client.memory_usage(f"piqueue:{{{job_id}}}:meta", samples=0) or 0)
    assert 0 < sizes[1] < sizes[0] * 1.2


def test_the_ledger_script_ships_with_the_package() -> None:
    import worker.jobs.ledger

    assert (Path(worker.jobs.ledger.__file__).parent / "ledger.lua").is_file()


def test_a_full_draft_refuses_more_but_knows_its_items(store: JobStore) -> None:
    draft = NewJob(new_job_id(), "anyone", MODEL, ttl_s=3600)
    store.open_draft(draft)
    items = [(b"print %d" % at, ItemSpec(str(at), "http://h/")) for at in range(4)]
    reserved = store.reserve(draft.id, [(spec.id, fingerprint) for fingerprint, spec in items])
    assert reserved == [(str(at), IdState.FREE) for at in range(4)]
    assert store.add(draft.id, items[:2], 2) == [True, True]
    for more in (items[1:3], items[2:]):
        with pytest.raises(TooLarge):
            store.add(draft.id, more, 2)
    assert store.add(draft.id, items[:2], 2) == [False, False], "the same items, sent again"
    assert store.job(draft.id).counts.total == 2
    asked = [("0", b"print 0"), ("0", b"other"), ("2", b"print 2"), ("", b"print 5")]
    assert store.reserve(draft.id, asked) == [
        ("0", IdState.ADDED),
        ("0", IdState.TAKEN),
        ("2", IdState.FREE),
        ("4", IdState.FREE),
    ]
    store.close_draft(draft.id)
    with pytest.raises(JobNotDraft):
        store.reserve(draft.id, asked)
