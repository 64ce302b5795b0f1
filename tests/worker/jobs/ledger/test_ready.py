"""The ready index on a real Redis: whose turn it is."""

from collections import Counter
from collections.abc import Collection
from dataclasses import replace

import pytest
from redis import Redis

from tests.worker.jobs.ledger.test_store import MODEL, REJECTED, scored
from worker.jobs.items import ItemSpec
from worker.jobs.ledger.claims import Claim
from worker.jobs.ledger.layout import NewJob, Shape
from worker.jobs.ledger.load import Load
from worker.jobs.ledger.store import MIN_SLOTS, JobStore
from worker.jobs.models.artifact import ModelCard
from worker.jobs.record import Lane, new_job_id

BULK_SHARE = 0.2
# In items / weight, of ready.lua.
MOST_LAG = 1000


@pytest.fixture
def store(redis_client: Redis) -> JobStore:
    return JobStore(redis_client)


def submit(
    store: JobStore,
    owner: str,
    total: int,
    lane: Lane = Lane.BULK,
    chunk_items: int = 10,
    model: ModelCard = MODEL,
) -> str:
    """Submit a job; gives its id."""
    job = NewJob(new_job_id(), owner, model, ttl_s=3600)
    specs = [ItemSpec(str(index), "http://h/") for index in range(total)]
    starts = range(0, total, chunk_items)
    chunks = [specs[start : start + chunk_items] for start in starts]
    store.put_chunk(job.id, 0, *chunks)
    store.submit(job, Shape(lane, total, chunk_items))
    return job.id


def serve(store: JobStore, count: int, others: Collection[str] = ()) -> list[Claim]:
    """Claim and commit chunks one by one; leave those of some models to other workers."""
    served = []
    for _ in range(count):
        (claim,) = store.claim_next(30, BULK_SHARE, others=others)
        store.commit(claim, scored(claim))
        served.append(claim)
    return served


def items_by(claims: list[Claim], owners: dict[str, str]) -> Counter[str]:
    """Count the items served of each owner."""
    counts: Counter[str] = Counter()
    for claim in claims:
        counts[owners[claim.job_id]] += len(claim.specs)
    return counts


def test_owners_share_by_weight_whatever_the_number_and_size_of_their_jobs(
    store: JobStore, redis_client: Redis
) -> None:
    redis_client.hset("piqueue:weights", "c", 2)
    owners = {submit(store, "a", 4000): "a"}
    owners |= {submit(store, "b", 50, chunk_items=5): "b" for _ in range(60)}
    owners |= {submit(store, "c", 1000): "c" for _ in range(4)}
    counts = items_by(serve(store, 400), owners)
    total = counts.total()
    assert counts["a"] / total == pytest.approx(0.25, abs=0.01)
    assert counts["b"] / total == pytest.approx(0.25, abs=0.01)
    assert counts["c"] / total == pytest.approx(0.50, abs=0.01)


def test_one_picture_goes_first_beside_a_flood_of_small_jobs_of_another_owner(
    store: JobStore,
) -> None:
    for _ in range(300):
        submit(store, "a", 64, Lane.INTERACTIVE, chunk_items=16)
    submit(store, "a", 1000)
    serve(store, 37)
    for _ in range(20):
        job_id = submit(store, "b", 1, Lane.INTERACTIVE)
        assert job_id in [claim.job_id for claim in serve(store, 2)], "at most one chunk before it"


def test_an_owner_that_was_away_saves_up_no_turns(store: JobStore) -> None:
    owners = {submit(store, "a", 20_000): "a"}
    serve(store, 500)
    owners[submit(store, "b", 20_000)] = "b"
    counts = items_by(serve(store, 100), owners)
    assert abs(counts["a"] - counts["b"]) <= 10


def test_an_owner_that_sends_one_job_after_the_other_gets_no_more_than_its_share(
    store: JobStore,
) -> None:
    owners = {submit(store, "b", 20_000): "b"}
    served, waits = [], False
    for _ in range(100):
        if not waits:
            owners[submit(store, "a", 10)] = "a"
        served += serve(store, 1)
        waits = owners[served[-1].job_id] == "b"
    counts = items_by(served, owners)
    assert abs(counts["a"] - counts["b"]) <= 20


def test_the_jobs_of_an_owner_share_equally(store: JobStore) -> None:
    first = submit(store, "a", 5000)
    serve(store, 100)
    second = submit(store, "a", 5000)
    counts = Counter(claim.job_id for claim in serve(store, 100))
    assert abs(counts[first] - counts[second]) <= 1


def test_bulk_keeps_its_share_beside_a_flood_of_interactive_jobs(store: JobStore) -> None:
    bulk = submit(store, "a", 20_000, chunk_items=32)
    for _ in range(100):
        submit(store, "b", 64, Lane.INTERACTIVE, chunk_items=16)
    served = serve(store, 300)
    items = sum(len(claim.specs) for claim in served)
    bulk_items = sum(len(claim.specs) for claim in served if claim.job_id == bulk)
    assert bulk_items / items == pytest.approx(BULK_SHARE, abs=0.02)


def test_bulk_keeps_its_share_beside_small_jobs_sent_one_after_the_other(store: JobStore) -> None:
    bulk = submit(store, "a", 20_000)
    served, waits = [], False
    for _ in range(200):
        if not waits:
            submit(store, "b", 10, Lane.INTERACTIVE)
        served += serve(store, 1)
        waits = served[-1].job_id == bulk
    bulk_chunks = sum(claim.job_id == bulk for claim in served)
    assert bulk_chunks / len(served) == pytest.approx(BULK_SHARE, abs=0.02)


def test_an_interactive_job_goes_before_waiting_bulk_work(store: JobStore) -> None:
    submit(store, "a", 5000)
    serve(store, 50)
    small = submit(store, "a", 4, Lane.INTERACTIVE, chunk_items=1)
    assert {claim.job_id for claim in serve(store, 4)} == {small}


def test_jobs_that_are_deleted_or_cancelled_hold_nobody_up(store: JobStore) -> None:
    for at in range(150):
        job_id = submit(store, "a", 64, Lane.INTERACTIVE)
        (store.erase if at % 2 else store.cancel)(job_id)
    last = submit(store, "b", 1, Lane.INTERACTIVE)
    assert serve(store, 1)[0].job_id == last
    assert not store.claim_next(30, BULK_SHARE)


def test_a_worker_leaves_models_to_others_and_prefers_warm_ones(store: JobStore) -> None:
    other = replace_model("other")
    cold = submit(store, "a", 100, model=MODEL)
    warm = submit(store, "a", 100, model=other)
    keys = {card.name: card.ref.key for card in (MODEL, other)}
    (first,) = store.claim_next(30, BULK_SHARE, warm=[keys["other"]])
    assert first.job_id == warm, "both have equal right"
    for _ in range(9):
        (claim,) = store.claim_next(30, BULK_SHARE, others=[keys["other"]])
        assert claim.job_id == cold
    assert not store.claim_next(30, BULK_SHARE, others=list(keys.values()))


def test_jobs_that_are_left_to_others_hide_no_other_work(store: JobStore) -> None:
    other = replace_model("other")
    for owner in ("a", "b"):
        for _ in range(40):
            submit(store, owner, 1, model=other)
    usable = {submit(store, owner, 1) for owner in ("a", "c")}
    served = serve(store, 2, others=[other.ref.key])
    assert {claim.job_id for claim in served} == usable
    assert not store.claim_next(30, BULK_SHARE, others=[other.ref.key])


def submit_uploads(
    store: JobStore, owner: str, count: int, model: ModelCard = MODEL, *, use_cache: bool = False
) -> list[str]:
    """Submit jobs of one upload, as clients that send pictures one by one; gives their ids."""
    jobs = [
        NewJob(new_job_id(), owner, model, ttl_s=3600, use_cache=use_cache) for _ in range(count)
    ]
    for job in jobs:
        chunks, uploads = {0: [ItemSpec("a")]}, {"a": job.id.encode()}
        store.submit(job, Shape(Lane.INTERACTIVE, 1, 1), None, chunks, uploads)
    return [job.id for job in jobs]


def test_jobs_of_one_upload_are_claimed_together_and_no_slot_gets_more_than_its_part(
    store: JobStore,
) -> None:
    first = submit_uploads(store, "a", MIN_SLOTS)
    assert [claim.job_id for claim in store.claim_next(30, BULK_SHARE, most=8)] == first[:1]
    waiting = first[1:] + submit_uploads(store, "a", 3 * MIN_SLOTS)
    claims = store.claim_next(30, BULK_SHARE, most=8)
    assert [claim.job_id for claim in claims] == waiting[:4], "a part of what waits"
    assert [claim.upload for claim in claims] == [job_id.encode() for job_id in waiting[:4]]
    assert len(store.claim_next(30, BULK_SHARE, most=2)) == 2, "at most as many as asked for"
    accepted, waits = store.commit_all([(claim, scored(claim)) for claim in claims])
    assert (accepted, waits) == ([True] * 4, True)
    assert store.commit_all([(claim, [REJECTED]) for claim in claims])[0] == [False] * 4
    for claim in claims:
        assert store.job(claim.job_id).counts.succeeded == 1


def test_jobs_that_are_claimed_together_count_as_a_chunk_of_their_owner(store: JobStore) -> None:
    submit_uploads(store, "a", 400)
    submit_uploads(store, "b", 400)
    counts: Counter[str] = Counter()
    for _ in range(40):
        claims = store.claim_next(30, BULK_SHARE, most=8)
        (owner,) = {store.job(claim.job_id).owner for claim in claims}
        counts[owner] += len(claims)
        assert abs(counts["a"] - counts["b"]) <= 8


@pytest.mark.parametrize("kind", ["url", "model", "cache", "attempt"])
def test_a_job_that_may_take_longer_is_claimed_alone(
    store: JobStore, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("worker.jobs.ledger.store.MIN_SLOTS", 1)
    if kind == "url":
        odd = submit(store, "a", 1, Lane.INTERACTIVE)
    else:
        model = replace_model("other") if kind == "model" else MODEL
        (odd,) = submit_uploads(store, "a", 1, model, use_cache=kind == "cache")
    if kind == "attempt":
        store.claim_next(0.001, BULK_SHARE)
        while not store.job(odd).counts.waiting:
            store.recover()
    submit_uploads(store, "a", 9)
    together = []
    while claims := store.claim_next(30, BULK_SHARE, most=100):
        together.append([claim.job_id for claim in claims])
    assert [odd] in together
    assert sorted(len(jobs) for jobs in together) == [1, 9]


def replace_model(name: str) -> ModelCard:
    """Give the card of another model."""
    return MODEL.model_copy(update={"name": name})


def test_a_waiting_job_says_its_position(store: JobStore, redis_client: Redis) -> None:
    load = Load(redis_client)
    jobs = [submit(store, "a", 10) for _ in range(5)]
    positions = [load.queue_position(store.job(job_id)) for job_id in jobs]
    assert [place and place.position for place in positions] == [1, 2, 3, 4, 5]
    other = submit(store, "b", 10)
    place = load.queue_position(store.job(other))
    assert place is not None
    assert (place.position, place.start_s) == (1, None)
    assert load.queue_position(store.job(jobs[2])) == replace(place, position=5)
    serve(store, 6)
    assert load.queue_position(store.job(jobs[0])) is None


def test_the_oldest_wait_of_each_lane_is_known(store: JobStore, redis_client: Redis) -> None:
    load = Load(redis_client)
    job_id = submit(store, "a", 20)
    redis_client.zincrby("piqueue:waiting:bulk", -90_000, job_id)
    oldest = load.open_items().oldest_waiting_s
    assert oldest[Lane.INTERACTIVE] == 0
    assert 90 <= oldest[Lane.BULK] < 150
    serve(store, 2)
    assert load.open_items().oldest_waiting_s[Lane.BULK] == 0


def test_new_jobs_of_an_owner_do_not_hold_up_one_that_has_begun(store: JobStore) -> None:
    begun = submit(store, "a", 64, Lane.INTERACTIVE, chunk_items=16)
    serve(store, 1)
    for _ in range(5):
        submit(store, "a", 1, Lane.INTERACTIVE)
    served = set()
    for _ in range(100):
        submit(store, "a", 1, Lane.INTERACTIVE)
        served.add(serve(store, 1)[0].job_id)
    assert begun in served


@pytest.mark.parametrize("lane", Lane)
def test_work_that_no_worker_can_score_yet_saves_up_few_turns(store: JobStore, lane: Lane) -> None:
    other = replace_model("other")
    blocked = [other.ref.key]
    owners = {submit(store, "a", 20_000, lane): "a"}
    owners[submit(store, "x", 20_000, model=other)] = "x"
    serve(store, 300, others=blocked)
    owners[submit(store, "b", 20_000, lane)] = "b"
    counts = items_by(serve(store, 100, others=blocked), owners)
    assert abs(counts["a"] - counts["b"]) <= 10, "who comes later does not save up turns either"
    counts = items_by(serve(store, 600), owners)
    share = {Lane.BULK: 1 / 3, Lane.INTERACTIVE: BULK_SHARE}[lane]
    assert counts["x"] >= share * counts.total()
    assert counts["x"] <= share * counts.total() + MOST_LAG


def test_jobs_of_an_owner_that_no_worker_can_score_yet_save_up_few_turns(store: JobStore) -> None:
    other = replace_model("other")
    blocked, first = submit(store, "a", 20_000, model=other), submit(store, "a", 20_000)
    serve(store, 300, others=[other.ref.key])
    second = submit(store, "a", 20_000)
    counts = Counter(claim.job_id for claim in serve(store, 100, others=[other.ref.key]))
    assert abs(counts[first] - counts[second]) <= 1
    counts = Counter(claim.job_id for claim in serve(store, 300))
    assert 100 <= counts[blocked] <= 100 + MOST_LAG / 10


def test_nothing_is_kept_of_owners_while_nothing_waits(
    store: JobStore, redis_client: Redis
) -> None:
    for owner in range(20):
        submit(store, str(owner), 20, list(Lane)[owner % 2])
    serve(store, 40)
    assert not list(redis_client.scan_iter("piqueue:ready*"))
    assert not list(redis_client.scan_iter("piqueue:waiting*"))
    assert not redis_client.exists("piqueue:virtual")
