"""Jobs written straight into the ledger of a running Piqueue, with the results a test wants."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from redis import Redis

from worker.jobs.items import (
    ImageFacts,
    ItemResult,
    ItemSpec,
    Rejection,
    RejectionCode,
    Stage,
    Timings,
)
from worker.jobs.ledger.api_keys import ANYONE
from worker.jobs.ledger.claims import Claim, read_claim
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.functions import Library
from worker.jobs.ledger.layout import NewJob, Shape
from worker.jobs.ledger.store import _LUA, JobStore
from worker.jobs.models.artifact import ModelCard
from worker.jobs.models.catalog import ModelCatalog
from worker.jobs.models.folder import ModelFolder
from worker.jobs.record import CsvShape, Job, Lane, new_job_id
from worker.jobs.settings import ARTIFACTS_PATH

MODEL = ModelCatalog([ModelFolder(ARTIFACTS_PATH)], "scenes").resolve(None)
TIMEOUT = Rejection(RejectionCode.FETCH_TIMEOUT, Stage.FETCH, True, "no answer in 15 s")
NOT_FOUND = Rejection(RejectionCode.FETCH_HTTP_STATUS, Stage.FETCH, False, "answered 404")


def scored(*scores: float) -> ItemResult:
    """Give the result of an item with these scores."""
    image = ImageFacts("5f" * 32, 183112, "jpeg", 1200, 800)
    return ItemResult(scores, image=image, timings=Timings(84, 6, 12), variant="float")


def rejected(rejection: Rejection = TIMEOUT) -> ItemResult:
    """Give the result of an item without scores."""
    return ItemResult(rejection=rejection)


_HELD = """
offer_step_of_job('submit_held', function()
  local outcome = submit()
  make_unready()
  return outcome
end)
offer_step_of_job('take', function()
  return describe(ARGV[2], claim(ARGV[2], false, 600000), 0)
end)
"""


class HeldJobs(JobStore):
    """Submits jobs that no worker sees; a test claims their chunks by index."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self._library = Library(redis, "held", _LUA + _HELD)

    def _step(self, step: str, *args: str | bytes | float) -> Any:
        return super()._step("submit_held" if step == "submit" else step, *args)

    def claim(self, job_id: str, chunk_index: int) -> Claim:
        """Lease a chunk for ten minutes."""
        return read_claim(*self._step("take", job_id, chunk_index))


@contextmanager
def ledger(redis_url: str) -> Iterator[HeldJobs]:
    """Open the ledger at this address."""
    redis: Redis = connect(redis_url)
    with redis:
        yield HeldJobs(redis)


def store_job(
    store: HeldJobs,
    count: int,
    spec: Callable[[int], ItemSpec],
    result: Callable[[int], ItemResult],
    *,
    csv: CsvShape | None = None,
    parent_job: str | None = None,
    chunk_items: int = 32,
    model: ModelCard = MODEL,
    owner: str = ANYONE,
) -> Job:
    """Make a job that is done, of `count` items given by their index."""
    job_id = new_job_id()
    indexes = range(count)
    chunks = [indexes[at : at + chunk_items] for at in range(0, count, chunk_items)]
    for chunk_index, chunk in enumerate(chunks):
        store.put_chunk(job_id, chunk_index, [spec(index) for index in chunk])
    new_job = NewJob(job_id, owner, model, ttl_s=3600, parent_job=parent_job, csv=csv)
    store.submit(new_job, Shape(Lane.BULK, count, chunk_items))
    for chunk_index, chunk in enumerate(chunks):
        store.commit(store.claim(job_id, chunk_index), [result(index) for index in chunk])
    job = store.job(job_id)
    assert job.status.done
    return job
