"""Host statistics of a job: counted, summed in the ledger, and read."""

import json
import random

import pytest
from redis import Redis

from tests.api.stored_jobs import MODEL
from worker.jobs.host_statistics import (
    BUCKETS_MS,
    KEPT_HOSTS,
    HostTally,
    count_hosts,
    heaviest_hosts,
)
from worker.jobs.items import (
    ImageFacts,
    ItemResult,
    ItemSpec,
    Rejection,
    RejectionCode,
    Stage,
    Timings,
)
from worker.jobs.ledger.claims import Claim
from worker.jobs.ledger.layout import NewJob, Shape
from worker.jobs.ledger.store import JobStore
from worker.jobs.record import Lane, new_job_id

CHUNK_ITEMS = 10


@pytest.fixture
def store(redis_client: Redis) -> JobStore:
    return JobStore(redis_client)


def fetched(ms: int = 20) -> ItemResult:
    return ItemResult((0.5,), image=ImageFacts("5f" * 32, 10), timings=Timings(fetch_ms=ms))


def failed(
    code: RejectionCode, status: int | None = None, stage: Stage = Stage.FETCH, ms: int = 20
) -> ItemResult:
    rejection = Rejection(code, stage, True, "why", status)
    return ItemResult(rejection=rejection, timings=Timings(fetch_ms=ms))


NOT_FOUND = failed(RejectionCode.FETCH_HTTP_STATUS, 404)
TIMED_OUT = failed(RejectionCode.FETCH_TIMEOUT, ms=15_000)
NO_NAME = failed(RejectionCode.FETCH_DNS)


def run(
    store: JobStore, urls: list[str | None], results: list[ItemResult]
) -> tuple[str, list[Claim]]:
    """Run a job of these items; gives its id and the claims of its chunks."""
    job_id = new_job_id()
    specs = [ItemSpec(str(index), url) for index, url in enumerate(urls)]
    chunks = range(0, len(specs), CHUNK_ITEMS)
    for chunk, start in enumerate(chunks):
        store.put_chunk(job_id, chunk, specs[start : start + CHUNK_ITEMS])
    new_job = NewJob(job_id, "anyone", MODEL, ttl_s=3600)
    store.submit(new_job, Shape(Lane.BULK, len(specs), CHUNK_ITEMS))
    claims = []
    for chunk, start in enumerate(chunks):
        (claim,) = store.claim_next(30, bulk_share=0.2)
        assert claim.chunk_index == chunk
        claims.append(claim)
        store.commit(claim, results[start : start + CHUNK_ITEMS])
    return job_id, claims


def by_name(store: JobStore, job_id: str) -> dict[str | None, HostTally]:
    return {tally.name: tally for tally in store.job(job_id).hosts}


def test_each_host_has_the_outcomes_of_its_urls(store: JobStore) -> None:
    urls: list[str | None] = []
    results = []
    for _ in range(10):
        urls += ["http://A.example/1?sig=SECRET", "https://user:pw@a.example:8443/2", None]
        results += [fetched(), NOT_FOUND, fetched()]
        urls += ["http://b.example/x", "http://b.example/y", "http://c.example/"]
        results += [TIMED_OUT, NO_NAME, failed(RejectionCode.NOT_AN_IMAGE, stage=Stage.DECODE)]
    # What is no picture was fetched all the same.
    results[5::6] = [
        ItemResult(rejection=result.rejection, image=ImageFacts("00" * 32, 1))
        for result in results[5::6]
    ]
    job_id, _ = run(store, urls, results)

    hosts = by_name(store, job_id)
    assert set(hosts) == {"a.example", "b.example", "c.example"}
    a, b, c = hosts["a.example"], hosts["b.example"], hosts["c.example"]
    assert (a.ok, a.http_status, a.timeouts, a.other) == (10, {"404": 10}, 0, 0)
    assert (b.ok, b.http_status, b.timeouts, b.other) == (0, {}, 10, 10)
    assert (c.ok, c.failed) == (10, 0)
    assert (a.p95_ms, b.p95_ms) == (20, None)


def test_a_chunk_committed_twice_counts_its_hosts_once(store: JobStore) -> None:
    urls: list[str | None] = ["http://a.example/"] * 30
    job_id, claims = run(store, urls, [fetched()] * 30)
    for claim in claims:
        assert store.commit(claim, [NOT_FOUND] * CHUNK_ITEMS) is False
    assert by_name(store, job_id) == {
        "a.example": HostTally(
            "a.example", 30, answers=[30 if high == 20 else 0 for high in (*BUCKETS_MS, None)]
        )
    }


def test_a_job_of_uploads_has_no_hosts(store: JobStore) -> None:
    job_id, _ = run(store, [None] * 20, [fetched()] * 20)
    assert store.job(job_id).hosts == ()


def test_items_that_were_never_fetched_count_at_no_host(store: JobStore) -> None:
    lost = failed(RejectionCode.WORKER_LOST, stage=Stage.INFER)
    job_id, _ = run(store, ["http://a.example/"] * 5, [lost] * 5)
    assert store.job(job_id).hosts == ()


@pytest.mark.parametrize(
    "url",
    ["http://\ud800.example/", "http://[::1", "http:///x", "http://" + "a" * 5000, "http://*/"],
)
def test_no_url_prevents_the_commit_of_its_chunk(store: JobStore, url: str) -> None:
    job_id, _ = run(store, [url, "http://a.example/"], [NO_NAME, fetched()])
    assert store.job(job_id).status.done
    assert by_name(store, job_id)["a.example"].ok == 1


def test_many_hosts_take_little_memory_and_their_sum_is_complete(
    store: JobStore, redis_client: Redis
) -> None:
    urls: list[str | None] = []
    results = []
    for index in range(600):
        urls += [f"http://{index}.example/", "http://busy.example/"]
        results += [fetched(), fetched()]
        if index % 10 == 0:
            urls.append("http://failing.example/")
            results.append(NOT_FOUND)
    order = random.sample(range(len(urls)), len(urls))
    job_id, _ = run(store, [urls[at] for at in order], [results[at] for at in order])

    hosts = by_name(store, job_id)
    assert len(hosts) == KEPT_HOSTS + 1
    assert hosts["busy.example"].ok == 600
    assert hosts["failing.example"].http_status == {"404": 60}
    assert sum(tally.ok + tally.failed for tally in hosts.values()) == len(urls)
    assert sum(sum(tally.answers) for tally in hosts.values()) == len(urls)
    stored = redis_client.hget(f"piqueue:{{{job_id}}}:meta", "hosts")
    assert len(stored) < 10_000  # type: ignore[arg-type] # untyped client

    listed = heaviest_hosts(hosts.values(), 20)
    assert [tally.name for tally in listed[:2]] == ["failing.example", "busy.example"]
    assert len(listed) == 21
    assert listed[-1].name is None
    assert sum(tally.ok + tally.failed for tally in listed) == len(urls)


def test_host_statistics_are_erased_with_their_job(store: JobStore, redis_client: Redis) -> None:
    job_id, _ = run(store, ["http://a.example/"] * 5, [fetched()] * 5)
    store.erase(job_id)
    assert list(redis_client.scan_iter(f"*{job_id}*")) == []


@pytest.mark.parametrize("worst_ms", [7, 90, 1200, 14_000, 59_000])
def test_the_95th_percentile_is_right_to_within_a_bucket(worst_ms: int) -> None:
    times = [1] * 90 + [worst_ms] * 10
    counted = count_hosts((ItemSpec("i", "http://a.example/"), fetched(ms)) for ms in times)
    tally = HostTally.from_row("a.example", json.loads(counted)["a.example"])
    high = min(bound for bound in BUCKETS_MS if bound >= worst_ms)
    low = max((bound for bound in BUCKETS_MS if bound < worst_ms), default=0)
    assert tally.p95_ms is not None
    assert low <= tally.p95_ms <= high


def test_answers_above_the_last_bucket_are_reported_as_its_bound() -> None:
    counted = count_hosts([(ItemSpec("i", "http://a.example/"), fetched(10**7))])
    tally = HostTally.from_row("a.example", json.loads(counted)["a.example"])
    assert tally.p95_ms == BUCKETS_MS[-1]
