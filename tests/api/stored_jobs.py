"""Jobs written straight into the ledger of a running Piqueue, with the results a test wants."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice

from redis import Redis

from worker.jobs.keys import ANYONE
from worker.jobs.models import ModelCatalog
from worker.jobs.record import (
    CsvShape,
    ImageFacts,
    ItemResult,
    ItemSpec,
    Job,
    Lane,
    Rejection,
    RejectionCode,
    Stage,
    Timings,
    new_job_id,
)
from worker.jobs.settings import ARTIFACTS_PATH
from worker.jobs.store import JobStore, NewJob, Shape, connect

MODEL = ModelCatalog(ARTIFACTS_PATH, "scenes").resolve(None)
TIMEOUT = Rejection(RejectionCode.FETCH_TIMEOUT, Stage.FETCH, True, "no answer in 15 s")
NOT_FOUND = Rejection(RejectionCode.FETCH_HTTP_STATUS, Stage.FETCH, False, "answered 404")


def scored(*scores: float) -> ItemResult:
    """Give the result of an item with these scores."""
    image = ImageFacts("5f" * 32, 183112, "jpeg", 1200, 800)
    return ItemResult(scores, image=image, timings=Timings(84, 6, 12))


def rejected(rejection: Rejection = TIMEOUT) -> ItemResult:
    """Give the result of an item without scores."""
    return ItemResult(rejection=rejection)


@contextmanager
def ledger(redis_url: str) -> Iterator[JobStore]:
    """Open the ledger at this address."""
    redis: Redis = connect(redis_url)
    try:
        yield JobStore(redis)
    finally:
        redis.close()


def store_job(
    store: JobStore,
    items: Sequence[tuple[ItemSpec, ItemResult]],
    *,
    csv: CsvShape | None = None,
    parent_job: str | None = None,
    chunk_items: int = 4,
) -> Job:
    """Make a job of these items that is done, each with its result."""
    return store_long_job(
        store,
        len(items),
        lambda index: items[index],
        csv=csv,
        parent_job=parent_job,
        chunk_items=chunk_items,
    )


def store_long_job(
    store: JobStore,
    count: int,
    item: Callable[[int], tuple[ItemSpec, ItemResult]],
    *,
    csv: CsvShape | None = None,
    parent_job: str | None = None,
    chunk_items: int = 32,
    done: Callable[[int], bool] = lambda _chunk: True,
) -> Job:
    """Make a job of `count` items whose chunks are finished where `done` says so."""
    job_id = new_job_id()
    chunks = range(-(-count // chunk_items))
    indexes = iter(range(count))
    pairs = {}
    for chunk in chunks:
        pairs[chunk] = [item(index) for index in islice(indexes, chunk_items)]
        store.put_chunk(job_id, chunk, [spec for spec, _ in pairs[chunk]])
        if not done(chunk):
            del pairs[chunk]
    return store.job(job_id)
