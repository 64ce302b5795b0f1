"""The Celery app of a worker process: a task claims and scores chunks until none waits."""

import structlog
from celery import Celery

from worker.jobs.errors import LedgerUnavailable
from worker.jobs.queue import WORK, make_celery
from worker.scoring.chunk import run_next_chunk
from worker.scoring.runtime import Runtime

log = structlog.get_logger()


def make_worker_app(runtime: Runtime) -> Celery:
    """Create the Celery app whose tasks use `runtime`."""
    celery = make_celery(runtime.settings)

    # If a task fails, Celery logs it, the lease of its chunk expires, and recovery wakes another.
    @celery.task(name=WORK)  # type: ignore[untyped-decorator]
    def work() -> None:
        try:
            with runtime.slot() as usable:
                while usable() and run_next_chunk(runtime):
                    pass
        except LedgerUnavailable as error:
            log.warning("chunk_abandoned", reason=str(error))

    return celery
