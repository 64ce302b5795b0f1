"""The score cache, on a real Redis."""

import pytest
from redis import Redis

from tests.api.stored_jobs import MODEL, scored
from worker.jobs.items import ItemSpec
from worker.jobs.ledger.layout import NewJob, Shape
from worker.jobs.ledger.score_cache import ScoreCache
from worker.jobs.ledger.store import JobStore
from worker.jobs.record import Lane, new_job_id

RESULT = scored(0.1, 0.2, 0.3, 0.4)


@pytest.fixture
def jobs(redis_client: Redis) -> dict[str, str]:
    """Submit two jobs of ann and one of bob; gives their ids."""
    store, ids = JobStore(redis_client), {}
    for name in ("ann", "ann again", "bob"):
        job = NewJob(new_job_id(), name.split()[0], MODEL, ttl_s=60, use_cache=True)
        store.put_chunk(job.id, 0, [ItemSpec("0", "http://h/")])
        store.submit(job, Shape(Lane.BULK, 1, 1))
        ids[name] = job.id
    return ids


def found_by(
    cache: ScoreCache, jobs: dict[str, str], model_key: str = "m", variant: str = "float"
) -> list[str]:
    assert RESULT.image is not None
    sha256 = RESULT.image.sha256
    return [name for name, job_id in jobs.items() if cache.get(job_id, model_key, variant, sha256)]


def test_an_owner_finds_its_own_results_only(redis_client: Redis, jobs: dict[str, str]) -> None:
    cache = ScoreCache(redis_client, 60)
    cache.put(jobs["ann"], "m", RESULT)
    assert found_by(cache, jobs) == ["ann", "ann again"]
    assert found_by(cache, jobs, "other model") == []
    assert found_by(cache, jobs, variant="int8") == []
    cache.put(jobs["bob"], "m", RESULT)
    assert found_by(cache, jobs) == ["ann", "ann again", "bob"]
    assert RESULT.image is not None
    stored = cache.get(jobs["bob"], "m", "float", RESULT.image.sha256)
    assert stored is not None
    assert stored.scores == pytest.approx(RESULT.scores)
    assert stored.cached


def test_a_shared_cache_serves_all_owners(redis_client: Redis, jobs: dict[str, str]) -> None:
    cache = ScoreCache(redis_client, 60, shared=True)
    cache.put(jobs["ann"], "m", RESULT)
    assert found_by(cache, jobs) == list(jobs)


def test_an_erased_job_shares_nothing(redis_client: Redis, jobs: dict[str, str]) -> None:
    JobStore(redis_client).erase(jobs["bob"])
    cache = ScoreCache(redis_client, 60)
    cache.put(jobs["bob"], "m", RESULT)
    gone = {"gone": new_job_id()}
    assert found_by(cache, jobs | gone) == ["bob"]
