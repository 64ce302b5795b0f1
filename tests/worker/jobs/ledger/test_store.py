"""The ledger on a real Redis: claims, leases, commits, windows, counts and final states."""

import base64
import json
from collections.abc import Sequence
from datetime import date

import pytest
from redis import Redis

from worker.jobs.errors import JobNotDraft, JobNotFound, TooLarge
from worker.jobs.items import ImageFacts, ItemResult, ItemSpec, Rejection, RejectionCode, Stage
from worker.jobs.ledger.claims import Claim
from worker.jobs.ledger.layout import NewJob, Shape
from worker.jobs.ledger.load import Load
from worker.jobs.ledger.store import UNSUBMITTED_TTL_S, IdState, JobStore, StoredThumbnails
from worker.jobs.ledger.workers import Workers
from worker.jobs.models.artifact import ModelCard
from worker.jobs.record import Job, JobStatus, Lane, new_job_id
from worker.jobs.settings import load_settings
from worker.jobs.storage.redis_blobs import RedisBlobs
from worker.jobs.wake_up import QUEUE, WORK, wake_up
from worker.queue import make_celery

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

WAKE_UPS = f"piqueue:{QUEUE}"


@pytest.fixture
def store(redis_client: Redis) -> JobStore:
    return JobStore(redis_client)


@pytest.fixture
def load(redis_client: Redis) -> Load:
    return Load(redis_client)


def submit(store: JobStore, total: int, chunk_items: int = 10) -> tuple[str, list[int]]:
    """Submit a job; gives its id and the indexes of its chunks."""
    job = NewJob(new_job_id(), "anyone", MODEL, ttl_s=3600)
    specs = [ItemSpec(f"id-{index}", f"http://h/{index}") for index in range(total)]
    starts = range(0, total, chunk_items)
    for chunk, start in enumerate(starts):
        store.put_chunk(job.id, chunk, specs[start : start + chunk_items])
    store.submit(job, Shape(Lane.BULK, total, chunk_items))
    return job.id, list(range(len(starts)))


def claim(store: JobStore, job_id: str, chunk: int, lease_s: float = 30) -> Claim:
    """Claim the next chunk, which must be this one."""
    (taken,) = store.claim_next(lease_s, bulk_share=0.2)
    assert (taken.job_id, taken.chunk_index) == (job_id, chunk)
    return taken


def scored(taken: Claim) -> list[ItemResult]:
    """Give each item of a chunk a score that tells its index."""
    first = taken.first_index
    return [ItemResult(scores=((first + at) / 1000, 0.5)) for at in range(len(taken.specs))]


def finish(store: JobStore, job_id: str, chunks: Sequence[int]) -> Job:
    """Claim the chunks, and commit the last first."""
    for taken in reversed([claim(store, job_id, chunk) for chunk in chunks]):
        store.commit(taken, scored(taken))
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
    assert claim(store, job_id, 1), "the first is leased"
    assert not store.claim_next(30, 0.2)
    assert store.commit(taken, scored(taken))
    assert not store.commit(taken, [REJECTED] * 10)

    counts = store.job(job_id).counts
    assert (counts.succeeded, counts.failed, counts.running) == (10, 0, 10)


def test_requests_whose_answers_were_lost_are_repeated_without_effect(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id, _ = submit(store, total=20)
    monkeypatch.setattr("worker.jobs.ledger.store.secrets.token_hex", lambda _: "the same request")
    taken = claim(store, job_id, 0)
    assert claim(store, job_id, 0) == taken
    assert store.job(job_id).counts.running == 10
    assert store.commit(taken, scored(taken))
    assert store.commit(taken, scored(taken))
    assert store.job(job_id).counts.succeeded == 10
    assert claim(store, job_id, 1), "the request is old, and its lease is over"


def test_the_first_of_two_workers_that_both_scored_a_chunk_wins(store: JobStore) -> None:
    job_id, _ = submit(store, total=10)
    slow = claim(store, job_id, 0, lease_s=0.001)
    recover_until_due(store)
    fast = claim(store, job_id, 0)
    store.commit(fast, [REJECTED] * 10)
    assert not store.commit(slow, scored(slow))

    job = store.job(job_id)
    assert job.status is JobStatus.FAILED
    assert job.failures == {"not_an_image": 10}


def test_a_chunk_that_is_done_is_given_out_once_more_at_most_when_redis_lost_its_claim(
    store: JobStore, redis_client: Redis
) -> None:
    job_id, _ = submit(store, total=30)
    store.commit(one := claim(store, job_id, 0), scored(one))
    kept = {key: redis_client.dump(key) for key in redis_client.scan_iter()}
    lost = claim(store, job_id, 1)
    redis_client.flushdb()
    for key, value in kept.items():
        assert value is not None
        redis_client.restore(key, 0, value)
    assert store.commit(lost, scored(lost))
    again = claim(store, job_id, 1)
    assert not store.commit(again, [REJECTED] * 10)
    assert not redis_client.exists("piqueue:due"), "the lease ended"
    assert redis_client.get("piqueue:running") == b"0"
    store.commit(last := claim(store, job_id, 2), scored(last))
    job = store.job(job_id)
    assert (job.status, job.counts.succeeded, job.counts.running) == (JobStatus.SUCCEEDED, 30, 0)


def recover_until_due(store: JobStore) -> list[str]:
    """Run recovery until a lease of a millisecond has run out; gives what was due."""
    while not (due := store.recover()):
        pass
    return due


def test_only_the_owner_of_a_lease_can_renew_it(store: JobStore) -> None:
    job_id, _ = submit(store, total=10)
    first = claim(store, job_id, 0, lease_s=0.001)
    recover_until_due(store)
    assert not store.renew(first, 30), "its lease was taken away"
    second = claim(store, job_id, 0)
    assert second.attempt == 2
    assert store.renew(second, 30)
    assert not store.renew(first, 30), "it is another's now"


def test_a_submission_sends_as_many_wake_ups_as_workers_can_use(
    store: JobStore, redis_client: Redis
) -> None:
    workers = Workers(redis_client)
    workers.heartbeat("one", slots=4)
    workers.heartbeat("two", slots=6)
    job = NewJob(new_job_id(), "anyone", MODEL, ttl_s=3600)
    for chunk in range(20):
        store.put_chunk(job.id, chunk, [ItemSpec(str(chunk), "http://h/")])
    store.submit(job, Shape(Lane.BULK, 20, 1))
    names = [json.loads(one)["headers"]["id"] for one in redis_client.lrange(WAKE_UPS, 0, -1)]
    assert len(set(names)) == len(names) == 10
    redis_client.ltrim(WAKE_UPS, 0, 7)
    assert store.recover() == []
    assert redis_client.llen(WAKE_UPS) == 10, "eight were on the queue"
    redis_client.delete(WAKE_UPS)
    small = NewJob(new_job_id(), "anyone", MODEL, ttl_s=3600)
    store.put_chunk(small.id, 0, [ItemSpec("a", "http://h/")])
    store.submit(small, Shape(Lane.INTERACTIVE, 1, 1))
    assert redis_client.llen(WAKE_UPS) == 1
    redis_client.rpush(WAKE_UPS, *["message"] * 12)
    store.recover()
    assert redis_client.llen(WAKE_UPS) == 13


def test_a_wake_up_is_what_celery_sends(redis_client: Redis, redis_url: str) -> None:
    with make_celery(load_settings(redis_url=redis_url)) as celery:
        celery.send_task(WORK, task_id="name")
    sent = redis_client.lpop(WAKE_UPS)
    assert isinstance(sent, bytes)
    ours, celerys = json.loads(wake_up("name")), json.loads(sent)
    celerys["properties"]["delivery_tag"] = "name"
    for message in (ours, celerys):
        args, options, callbacks = json.loads(base64.b64decode(message.pop("body")))
        assert (args, options, set(callbacks.values()) - {None}) == ([], {}, set())
        # Celery also sends properties and headers that have their default.
        for part in ("headers", "properties"):
            message[part] = {key: message[part].get(key) for key in json.loads(wake_up())[part]}
    assert ours == celerys


def test_without_work_recovery_wakes_nobody(store: JobStore, redis_client: Redis) -> None:
    def wake_ups_of_recovery() -> int:
        redis_client.delete(WAKE_UPS)
        assert store.recover() == []
        return redis_client.llen(WAKE_UPS)

    assert wake_ups_of_recovery() == 0
    job_id, _ = submit(store, total=10)
    assert wake_ups_of_recovery() == 4, "a message that was lost is sent again"
    claim(store, job_id, 0)
    assert wake_ups_of_recovery() == 0


def test_an_item_at_which_two_attempts_died_is_quarantined(store: JobStore) -> None:
    job_id, _ = submit(store, total=10)
    claim(store, job_id, 0, lease_s=0.001)
    recover_until_due(store)
    lost = []
    for positions in ((6, 7), (9,), (9,), (7,), ()):
        claimed = claim(store, job_id, 0, lease_s=0.1)
        for position in positions:
            store.checkpoint(claimed, position)
        lost.append(claimed.quarantined)
        recover_until_due(store)
    assert lost == [set(), set(), set(), {9}, {7, 9}]


def test_a_chunk_whose_attempts_die_without_a_checkpoint_is_exhausted(store: JobStore) -> None:
    job_id, _ = submit(store, total=10)
    for _ in range(6):
        assert not claim(store, job_id, 0, lease_s=0.001).exhausted
        recover_until_due(store)
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
    assert load.open_items().job_count == load.backlog() == 0


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
    assert not store.claim_next(30, 0.2)
    assert store.commit(leased, scored(leased))

    job = store.job(job_id)
    assert job.status is JobStatus.CANCELLED
    assert (job.counts.succeeded, job.counts.cancelled) == (10, 90)
    assert len(list(store.results(job))) == 10


def test_a_cancelled_job_whose_worker_died_still_ends(store: JobStore) -> None:
    job_id, chunks = submit(store, total=100)
    claim(store, job_id, chunks[0], lease_s=0.001)
    store.cancel(job_id)
    while store.job(job_id).status is JobStatus.CANCELLING:
        store.recover()
    assert store.job(job_id).status is JobStatus.CANCELLED
    assert not store.claim_next(30, 0.2)


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


def test_an_erasure_that_is_repeated_by_a_retry_changes_nothing(
    store: JobStore, load: Load, redis_client: Redis
) -> None:
    job_id, _ = submit(store, total=10)
    kept, _ = submit(store, total=5)
    store.erase(job_id)
    keys = {key: redis_client.dump(key) for key in redis_client.keys("piqueue:*")}
    store.erase(job_id)
    assert {key: redis_client.dump(key) for key in redis_client.keys("piqueue:*")} == keys
    assert load.backlog() == 5
    assert store.job(kept).status is JobStatus.QUEUED


def test_a_job_that_expired_unfinished_leaves_the_backlog(
    store: JobStore, load: Load, redis_client: Redis
) -> None:
    job_id, _ = submit(store, total=100)
    taken = claim(store, job_id, 0)
    redis_client.zadd("piqueue:expiries", {f"expire {job_id} anyone": 1}, xx=True)
    assert store.recover() == [f"expire {job_id} anyone"]
    assert load.open_items().job_count == load.backlog() == 0
    assert not store.commit(taken, scored(taken))
    assert not store.claim_next(30, 0.2)


def running_with_all_keys(store: JobStore, redis_client: Redis) -> str:
    """Submit a job, and begin it so that it has every key that a job without a draft can have."""
    job_id, chunks = submit(store, total=100)
    RedisBlobs(redis_client).put(job_id, {"a": b"a"}, 60)
    thumbnails = [StoredThumbnails(5, b"small")]
    store.commit_all([(taken := claim(store, job_id, chunks[0]), scored(taken))], thumbnails)
    store.checkpoint(claim(store, job_id, chunks[1]), 0)
    store.release(claim(store, job_id, chunks[2]))
    assert len(redis_client.keys(f"piqueue:{{{job_id}}}:*")) == 9
    return job_id


def test_nothing_is_kept_of_jobs_that_expired(store: JobStore, redis_client: Redis) -> None:
    done, chunks = submit(store, total=10)
    finish(store, done, chunks)
    waiting = running_with_all_keys(store, redis_client)
    draft = NewJob(new_job_id(), "anyone", MODEL, ttl_s=3600)
    store.open_draft(draft)
    cancelled = NewJob(new_job_id(), "anyone", MODEL, ttl_s=3600)
    store.open_draft(cancelled)
    store.cancel(cancelled.id)
    for job_id in (done, waiting, draft.id, cancelled.id):
        redis_client.zadd("piqueue:expiries", {f"expire {job_id} anyone": 1}, xx=True)
    assert len(store.recover()) == 4
    redis_client.zincrby("piqueue:due", -60_000, f"lease {waiting} 1 10 1")
    assert len(store.recover()) == 1, "the lease of a chunk ends"
    left = {key.decode() for key in redis_client.scan_iter() if b"rate" not in key}
    assert left == {
        *("piqueue:clock", "piqueue:running", WAKE_UPS),
        # These expire by themselves.
        *(key for key in left if key.startswith(("piqueue:card:", "piqueue:claim:"))),
    }


@pytest.mark.parametrize("drafted", [False, True])
def test_what_was_stored_before_a_job_is_submitted_expires_only_without_it(
    store: JobStore, redis_client: Redis, drafted: bool
) -> None:
    job, abandoned = (NewJob(new_job_id(), "anyone", MODEL, ttl_s=60) for _ in range(2))
    if drafted:
        store.open_draft(job)
        store.reserve(job.id, [("a", b"print", b"")])
        store.add(job.id, [(b"print", ItemSpec("a"))], 10, 1)
    for one in (job, abandoned):
        RedisBlobs(redis_client).put(one.id, {"a": b"a"}, 60)
        store.put_chunk(one.id, 0, [ItemSpec("a")])
    store.submit(job, Shape(Lane.BULK, 1, 1), upload_bytes=0 if drafted else 1)
    kept = {key: redis_client.ttl(key) for key in redis_client.keys(f"*{job.id}*")}
    assert list(kept.values()) == [-1] * 3, kept
    left = [redis_client.ttl(key) for key in redis_client.keys(f"*{abandoned.id}*")]
    assert [0 < ttl_s <= UNSUBMITTED_TTL_S for ttl_s in left] == [True] * 2


def test_a_submission_that_is_repeated_by_a_retry_counts_once(store: JobStore, load: Load) -> None:
    job = NewJob(new_job_id(), "anyone", MODEL, ttl_s=3600)
    shape = Shape(Lane.BULK, total=10, chunk_items=10)
    store.put_chunk(job.id, 0, [ItemSpec(str(index), "http://h/") for index in range(10)])
    store.submit(job, shape)
    store.submit(job, shape)
    assert (load.backlog(), load.open_items().job_count) == (10, 1)


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


def test_a_full_draft_refuses_more_but_knows_its_items(store: JobStore, load: Load) -> None:
    draft = NewJob(new_job_id(), "anyone", MODEL, ttl_s=3600)
    store.open_draft(draft)
    items = [(b"print %d" % at, ItemSpec(str(at), "http://h/")) for at in range(4)]
    reserved = store.reserve(draft.id, [(spec.id, fingerprint, b"") for fingerprint, spec in items])
    assert reserved == [(str(at), IdState.FREE) for at in range(4)]
    assert store.add(draft.id, items[:2], 2, 9) == [True, True]
    for more in (items[1:3], items[2:]):
        with pytest.raises(TooLarge):
            store.add(draft.id, more, 2)
    assert store.add(draft.id, items[:2], 2, 9) == [False, False], "the same items, sent again"
    assert load.upload_bytes("anyone") == 9
    assert store.job(draft.id).counts.total == 2
    prints = [("0", b"print 0"), ("0", b"other"), ("2", b"print 2"), ("", b"print 5")]
    asked = [(item_id, fingerprint, b"") for item_id, fingerprint in prints]
    assert store.reserve(draft.id, asked) == [
        ("0", IdState.ADDED),
        ("0", IdState.TAKEN),
        ("2", IdState.FREE),
        ("4", IdState.FREE),
    ]
    store.close_draft(draft.id)
    with pytest.raises(JobNotDraft):
        store.reserve(draft.id, asked)


def test_a_commit_deletes_the_uploads_that_have_scores(
    store: JobStore, load: Load, redis_client: Redis
) -> None:
    blobs, job = RedisBlobs(redis_client), NewJob(new_job_id(), "anyone", MODEL, ttl_s=3600)
    blobs.put(job.id, {name: name.encode() for name in "abcd"}, 3600)
    store.put_chunk(
        job.id, 0, [ItemSpec("a"), ItemSpec("b", "http://h/b")], [ItemSpec("c"), ItemSpec("d")]
    )
    store.submit(job, Shape(Lane.BULK, 4, 2), upload_bytes=2)
    other = NewJob(new_job_id(), "anyone", MODEL, ttl_s=3600)
    store.submit(other, Shape(Lane.BULK, 1, 1), None, {0: [ItemSpec("a")]}, upload_bytes=5)
    store.commit(claim(store, job.id, 0), [REJECTED, ItemResult(scores=(0.5, 0.5))])
    assert list(blobs.get(job.id, "abcd")) == [b"a", b"b", b"c", b"d"], "a may be retried"
    claim(store, other.id, 0)
    taken = claim(store, job.id, 1)
    assert taken.upload is None, "several uploads do not come with the claim"
    store.commit(taken, [ItemResult(scores=(0.5, 0.5), image=ImageFacts("", 3)), REJECTED])
    assert list(blobs.get(job.id, "abcd")) == [b"a", b"b", None, b"d"]
    assert load.upload_bytes("anyone") == 5, "a job takes nothing from what others store"
    store.erase(job.id)
    assert list(blobs.get(job.id, "ad")) == [None, None]
