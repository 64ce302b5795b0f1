"""The Celery app of a worker process: a task claims and scores chunks until none waits."""

from typing import Any

import structlog
from celery import Celery
from celery.concurrency.thread import ApplyResult, TaskPool
from celery.worker.request import Request
from kombu.asynchronous import Hub, get_event_loop

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


class Threads(TaskPool):  # type: ignore[misc]
    """The threads of Celery; the end of a task wakes its loop.

    While all slots are occupied, the loop does not ask Redis for messages. It would ask again only
    at its next tick.
    """

    def on_apply(self, *args: Any, **options: Any) -> ApplyResult:
        """Run a task in a thread."""
        result = super().on_apply(*args, **options)
        loop: Hub = get_event_loop()
        result.f.add_done_callback(lambda _: loop.call_soon(_nothing))
        return result


def _nothing() -> None:
    """Be called, so that the loop goes round."""


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
