"""Recovers work that stalled: expired leases, deferred chunks and lost wake-ups."""

import structlog

from worker.jobs.errors import LedgerUnavailable
from worker.jobs.ledger.store import RECOVERED_AT_ONCE, JobStore
from worker.scoring.runtime import Runtime
from worker.upkeep.periodic import PeriodicThread

RECOVERY_S = 1.0

log = structlog.get_logger()


class Recovery(PeriodicThread):
    """Does what is due, until stopped; every worker runs it, and each step is atomic."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__("recovery", RECOVERY_S, self._recover, stop_s=RECOVERY_S)
        self._runtime = runtime

    def _recover(self) -> None:
        try:
            recover_stalled_work(self._runtime.store)
        except LedgerUnavailable as error:
            log.warning("recovery_failed", reason=str(error))


def recover_stalled_work(store: JobStore) -> None:
    """Do what is due, and wake workers if chunks wait and no message says so."""
    while True:
        due = store.recover()
        if due:
            log.info("recovered", due=due)
        if len(due) < RECOVERED_AT_ONCE:
            return
