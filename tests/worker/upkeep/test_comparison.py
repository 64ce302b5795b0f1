"""The thread that compares pictures, on a real Redis and a folder of features."""

from pathlib import Path

import numpy as np
import pytest
from redis import Redis
from structlog.testing import capture_logs

from model.artifact.features import pack_features
from model.artifact.subprocess_module import ModuleFailed
from tests.worker.jobs.ledger.test_store import MODEL, claim
from worker.jobs.items import ImageFacts, ItemResult, ItemSpec, PackedFeatures
from worker.jobs.ledger.layout import NewJob, Shape
from worker.jobs.ledger.store import JobStore
from worker.jobs.record import Lane, new_job_id
from worker.jobs.settings import Settings
from worker.jobs.storage.comparisons import Comparisons
from worker.jobs.storage.features import block_name, pack_blocks
from worker.jobs.storage.file_blobs import FileBlobs
from worker.jobs.storage.similar import Group, SimilarPictures, Summary
from worker.upkeep import comparison
from worker.upkeep.comparison import ComparisonThread

BACKBONE = "ab" * 32
TOTAL, FAILED = 25, 3


def scored_with_features(index: int) -> ItemResult:
    """A result with features: every fifth picture looks the same."""
    features = np.random.default_rng(index % 5).random(64, np.float32)
    noisy = features + 0.01 * np.random.default_rng(index).random(64, np.float32)
    return ItemResult(
        scores=(0.5, 0.5),
        image=ImageFacts(f"{index:064x}", 10),
        features={BACKBONE: PackedFeatures("float", pack_features(noisy))},
        difference_hash=bytes([index % 5] * 8),
    )


@pytest.fixture
def job_id(redis_client: Redis, tmp_path: Path) -> str:
    """A job whose item FAILED has no features."""
    store, blobs = JobStore(redis_client), FileBlobs(tmp_path, redis_client, 0)
    model = MODEL.model_copy(update={"backbone": BACKBONE})
    job = NewJob(new_job_id(), "anyone", model, ttl_s=3600, keep_features=True)
    specs = [ItemSpec(f"id-{index}", f"http://h/{index}") for index in range(TOTAL)]
    for chunk, start in enumerate(range(0, TOTAL, 10)):
        store.put_chunk(job.id, chunk, specs[start : start + 10])
    store.submit(job, Shape(Lane.BULK, TOTAL, 10))
    for chunk in range(3):
        taken = claim(store, job.id, chunk)
        indexes = range(taken.first_index, taken.first_index + len(taken.specs))
        results = [scored_with_features(index) for index in indexes]
        kept = [one for index, one in zip(indexes, results, strict=True) if index != FAILED]
        blobs.put_features(job.id, {block_name(chunk, BACKBONE): pack_blocks(kept)[BACKBONE]})
        store.commit(taken, results)
    return job.id


def thread(redis: Redis, folder: Path) -> ComparisonThread:
    return ComparisonThread(Settings(storage_url=str(folder)), redis)


def test_a_job_is_compared_once_it_is_wanted(
    redis_client: Redis, tmp_path: Path, job_id: str
) -> None:
    due, comparing = Comparisons(redis_client), thread(redis_client, tmp_path)
    similar = SimilarPictures(FileBlobs(tmp_path, redis_client, 0), job_id, BACKBONE)
    comparing.run_due()
    assert similar.summary() is None
    due.request(job_id)
    comparing.run_due()
    assert not due.has(job_id)
    assert similar.summary() == Summary(compared=24, groups=5, duplicates=19)
    groups = list(similar.groups())
    assert groups[0] == Group(5, [0, 5, 10, 15, 20])
    assert groups[-1] == Group(4, [8, 13, 18, 23])
    assert similar.of_item(FAILED) is None
    assert sorted(index for index, _ in (similar.of_item(7) or [])[:4]) == [2, 12, 17, 22]


def test_a_comparison_that_fails_is_tried_again(
    redis_client: Redis, tmp_path: Path, job_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_pictures: object) -> None:
        raise ModuleFailed("killed")

    monkeypatch.setattr(comparison, "compare", fail)
    due = Comparisons(redis_client)
    due.request(job_id)
    with capture_logs() as logs:
        thread(redis_client, tmp_path).run_due()
    assert logs[0]["event"] == "comparison_deferred"
    assert due.has(job_id)
    assert due.due(1) == []


def test_a_job_that_was_erased_is_not_compared(redis_client: Redis, tmp_path: Path) -> None:
    due = Comparisons(redis_client)
    due.request("job_gone")
    thread(redis_client, tmp_path).run_due()
    assert not due.has("job_gone")
