"""The Celery app of a worker process: each task is a doorway into its runtime."""

import structlog
from celery import Celery

from worker.jobs.errors import LedgerUnavailable
from worker.jobs.queue import CLASSIFY_CHUNK, make_celery
from worker.scoring.chunk import run_chunk
from worker.scoring.runtime import Runtime

log = structlog.get_logger()


def make_worker_app(runtime: Runtime) -> Celery:
    """Give the Celery app whose tasks run in `runtime`."""
    celery = make_celery(runtime.settings)

    # What a task leaves undone or raises, which Celery logs, is the sweep's: the lease runs out.
    @celery.task(name=CLASSIFY_CHUNK)  # type: ignore[untyped-decorator]
    def classify_chunk(job_id: str, chunk_index: int) -> None:
        # In all lines of this thread until its next chunk, those that Celery logs too.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(job_id=job_id, chunk_index=chunk_index)
        try:
            run_chunk(runtime, job_id, chunk_index)
        except LedgerUnavailable as error:
            log.warning("chunk_left", reason=str(error))

    return celery
