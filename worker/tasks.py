"""The Celery app of a worker process: a task claims and scores chunks until none waits."""

import structlog
from celery import Celery
from celery.worker.request import Request

from worker.jobs.errors import LedgerUnavailable
from worker.jobs.wake_up import WORK
from worker.queue import make_celery
from worker.scoring.chunk import run_next
from worker.scoring.runtime import Runtime

log = structlog.get_logger()


class _Unacknowledged(Request):  # type: ignore[misc]
    """The request of a message that Redis gave away when it delivered it."""

    def acknowledge(self) -> None:
        """Do nothing: kombu would ask Redis to forget the message."""


def make_worker_app(runtime: Runtime) -> Celery:
    """Create the Celery app whose tasks use `runtime`."""
    celery = make_celery(runtime.settings)

    # If a task fails, Celery logs it, the lease of its chunk expires, and recovery wakes another.
    @celery.task(name=WORK, Request=_Unacknowledged)  # type: ignore[untyped-decorator]
    def work() -> None:
        try:
            with runtime.slot() as usable:
                while usable() and run_next(runtime):
                    pass
        except LedgerUnavailable as error:
            log.warning("chunk_abandoned", reason=str(error))

    return celery
