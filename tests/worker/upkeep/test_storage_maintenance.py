"""Manifests are written from the ledger after any crash, and replace what is on S3."""

import json

import pytest
from redis import Redis

from scripts.images.s3_server import BUCKET, S3Server
from tests.worker.jobs.ledger.test_store import MODEL, REJECTED, claim, recover_until_due, scored
from worker.jobs.items import ItemSpec
from worker.jobs.ledger.layout import NewJob, Shape
from worker.jobs.ledger.store import JobStore
from worker.jobs.record import Lane, new_job_id
from worker.jobs.s3 import Folder
from worker.jobs.settings import Settings, load_settings
from worker.jobs.storage.parts import ResultParts, part_key
from worker.upkeep.storage_maintenance import StorageMaintenance

MANIFESTS = "piqueue:manifests"


@pytest.fixture
def settings(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name, value in s3_server.env.items():
        monkeypatch.setenv(name, value)
    return load_settings(storage_url=f"s3://{BUCKET}/archive")


@pytest.fixture
def parts(settings: Settings, redis_client: Redis) -> ResultParts:
    return ResultParts(Folder.open(settings, settings.storage_url), redis_client)


@pytest.fixture
def maintenance(settings: Settings, redis_client: Redis) -> StorageMaintenance:
    return StorageMaintenance(settings, redis_client)


def submit(store: JobStore, total: int = 25, *, parts: bool = True) -> str:
    job = NewJob(new_job_id(), "anyone", MODEL, ttl_s=3600, parts=parts)
    specs = [ItemSpec(f"id-{index}", f"http://h/{index}") for index in range(total)]
    for chunk, start in enumerate(range(0, total, 10)):
        store.put_chunk(job.id, chunk, specs[start : start + 10])
    store.submit(job, Shape(Lane.BULK, total, 10))
    return job.id


def stored_part(server: S3Server, job_id: str, chunk: int) -> list[dict[str, object]]:
    body = server.get(f"archive/{part_key(job_id, chunk)}")
    return [json.loads(line) for line in body.splitlines()]


def test_a_manifest_is_written_although_its_workers_died_after_the_last_commit(
    redis_client: Redis, s3_server: S3Server, parts: ResultParts, maintenance: StorageMaintenance
) -> None:
    store = JobStore(redis_client)
    job_id = submit(store)
    claims = [claim(store, job_id, chunk) for chunk in range(3)]
    for chunk in (2, 0, 1):
        assert parts.manifest(job_id) is None
        taken = claims[chunk]
        assert taken.parts
        if chunk != 1:  # one part is not written, as by a worker without S3
            parts.write(taken, scored(taken), MODEL)
        store.commit(taken, scored(taken))
        maintenance.run_due()
    manifest = parts.manifest(job_id)
    assert manifest is not None
    assert [(part.first_index, part.items) for part in manifest.parts] == [
        (0, 10),
        (10, 10),
        (20, 5),
    ]
    lines = [line for chunk in range(3) for line in stored_part(s3_server, job_id, chunk)]
    assert [(line["index"], line["scores"]) for line in lines] == [
        (index, {"beach": index / 1000, "city": 0.5}) for index in range(25)
    ]
    assert redis_client.zcard(MANIFESTS) == 0


def test_the_part_of_a_chunk_scored_twice_has_the_committed_results(
    redis_client: Redis, s3_server: S3Server, parts: ResultParts, maintenance: StorageMaintenance
) -> None:
    store = JobStore(redis_client)
    job_id = submit(store, total=10)
    slow = claim(store, job_id, 0, lease_s=0.001)
    recover_until_due(store)
    fast = claim(store, job_id, 0)
    parts.write(fast, scored(fast), MODEL)
    store.commit(fast, scored(fast))
    parts.write(slow, [REJECTED] * 10, MODEL)
    assert {line["status"] for line in stored_part(s3_server, job_id, 0)} == {"failed"}
    maintenance.run_due()
    assert {line["status"] for line in stored_part(s3_server, job_id, 0)} == {"succeeded"}


def test_a_cancelled_job_has_a_manifest_of_its_results(
    redis_client: Redis, parts: ResultParts, maintenance: StorageMaintenance
) -> None:
    store = JobStore(redis_client)
    job_id = submit(store)
    claim(store, job_id, 0)
    taken = claim(store, job_id, 1)
    store.cancel(job_id)
    store.commit(taken, scored(taken))
    redis_client.zadd("piqueue:due", {f"lease {job_id} 0 10 1": 1})
    store.recover()
    maintenance.run_due()
    manifest = parts.manifest(job_id)
    assert manifest is not None
    assert [part.key for part in manifest.parts] == ["part-00001.jsonl"]


def test_a_job_that_is_erased_or_without_parts_gets_no_manifest(
    redis_client: Redis, s3_server: S3Server, maintenance: StorageMaintenance
) -> None:
    store = JobStore(redis_client)
    erased, expired, without = submit(store), submit(store), submit(store, parts=False)
    for job_id in (erased, expired, without):
        store.cancel(job_id)
    assert redis_client.zcard(MANIFESTS) == 2
    store.erase(erased)
    assert redis_client.zcard(MANIFESTS) == 1
    redis_client.delete(*redis_client.keys(f"*{expired}*"))
    maintenance.run_due()
    assert redis_client.zcard(MANIFESTS) == 0
    for job_id in (erased, expired, without):
        assert s3_server.keys(f"archive/{job_id}") == []


def test_a_manifest_waits_while_s3_is_unavailable(
    redis_client: Redis, s3_server: S3Server, parts: ResultParts, maintenance: StorageMaintenance
) -> None:
    store = JobStore(redis_client)
    job_id = submit(store)
    store.cancel(job_id)
    s3_server.stop()
    try:
        maintenance.run_due()
    finally:
        s3_server.start()
    assert parts.manifest(job_id) is None
    redis_client.zincrby(MANIFESTS, -3600_000, job_id)
    maintenance.run_due()
    manifest = parts.manifest(job_id)
    assert manifest is not None
    assert manifest.parts == []


def test_the_parts_of_an_expired_job_are_erased(
    redis_client: Redis, s3_server: S3Server, parts: ResultParts, maintenance: StorageMaintenance
) -> None:
    store = JobStore(redis_client)
    job_id = submit(store, total=10)
    parts.expect(job_id, 3600)
    taken = claim(store, job_id, 0)
    parts.write(taken, scored(taken), MODEL)
    store.commit(taken, scored(taken))
    maintenance.run_due()
    assert len(s3_server.keys(f"archive/{job_id}/")) == 2
    redis_client.zincrby("piqueue:object-expiry", -3600_000, job_id)
    maintenance.run_due()
    assert s3_server.keys(f"archive/{job_id}/") == []
    assert redis_client.zcard("piqueue:object-expiry") == 0


def test_a_deferred_chunk_counts_no_attempt_and_can_be_claimed_after_its_delay(
    redis_client: Redis,
) -> None:
    store = JobStore(redis_client)
    job_id = submit(store, total=10)
    for deferrals in range(12):
        taken = claim(store, job_id, 0)
        assert (taken.attempt, taken.deferrals) == (deferrals + 1, deferrals)
        assert taken.first_try
        assert not taken.exhausted
        store.checkpoint(taken, 3)
        store.release(taken, 0.02)
        assert not store.claim_next(30, 0.2), "not before its delay is over"
        recover_until_due(store)
    taken = claim(store, job_id, 0, lease_s=0.001)
    assert taken.quarantined == frozenset()
    recover_until_due(store)
    store.release(taken, 60)
    second = claim(store, job_id, 0)
    assert not second.first_try, "the attempt was lost, so its worker cannot release the chunk"
    store.commit(second, scored(second))
    assert not redis_client.exists(f"piqueue:{{{job_id}}}:attempts")
