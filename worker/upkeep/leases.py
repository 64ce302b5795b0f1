"""Renews the leases of the chunks that this worker scores."""

import structlog

from worker.jobs.errors import LedgerUnavailable
from worker.scoring.runtime import QUARANTINE_LEASE_S, Runtime
from worker.upkeep.periodic import PeriodicThread

log = structlog.get_logger()


class LeaseRenewal(PeriodicThread):
    """Renews leases until stopped, several times within the shortest lease."""

    def __init__(self, runtime: Runtime) -> None:
        period_s = min(QUARANTINE_LEASE_S, runtime.settings.lease_s) / 4
        super().__init__("leases", period_s, self._renew, stop_s=period_s)
        self._runtime = runtime

    def _renew(self) -> None:
        runtime = self._runtime
        try:
            for chunk in list(runtime.claimed.values()):
                runtime.store.renew(chunk.claim, runtime.lease_s(chunk.claim))
        except LedgerUnavailable as error:
            log.warning("leases_not_renewed", reason=str(error))
