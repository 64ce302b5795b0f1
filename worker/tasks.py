"""The Celery app of a worker process: a task only starts the work on a chunk."""

import structlog
from celery import Celery

from worker.jobs.errors import LedgerUnavailable
from worker.jobs.queue import CLASSIFY_CHUNK, make_celery
from worker.scoring.chunk import run_chunk
from worker.scoring.runtime import Runtime

log = structlog.get_logger()


def make_worker_app(runtime: Runtime) -> Celery:
    """Create the Celery app whose tasks use `runtime`."""
    celery = make_celery(runtime.settings)

    # If a task fails, Celery logs it, the lease of its chunk expires, and recovery notifies again.
    @celery.task(name=CLASSIFY_CHUNK)  # type: ignore[untyped-decorator]
    def classify_chunk(job_id: str, chunk_index: int) -> None:
        # All log lines of this thread get these fields, those of Celery too.
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(job_id=job_id, chunk_index=chunk_index)
        try:
            run_chunk(runtime, job_id, chunk_index)
        except LedgerUnavailable as error:
            log.warning("chunk_abandoned", reason=str(error))

    return celery
