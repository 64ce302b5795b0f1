"""Erases drafts that nobody adds to, while Redis or the disk for uploads has no room for others."""

import structlog

from worker.jobs.errors import LedgerUnavailable, StorageUnavailable
from worker.jobs.ledger.load import FULL_SHARE, Load
from worker.jobs.ledger.store import JobStore
from worker.jobs.storage.blobs import BlobStore
from worker.upkeep.periodic import PeriodicThread

POLL_S = 2.0

log = structlog.get_logger()


class IdleDrafts(PeriodicThread):
    """Looks for room until stopped; without it, erases one draft after the other."""

    def __init__(self, store: JobStore, load: Load, blobs: BlobStore, idle_s: float) -> None:
        super().__init__("idle-drafts", POLL_S, self._poll, stop_s=POLL_S)
        self._store = store
        self._load = load
        self._blobs = blobs
        self._idle_s = idle_s

    def run_due(self) -> None:
        """Erase the draft that is idle for the longest time, if there is no room."""
        if self._load.memory_share() <= FULL_SHARE and self._blobs.room_bytes() != 0:
            return
        if job_id := self._store.erase_idle_draft(self._idle_s):
            self._blobs.erase(job_id)
            log.warning("idle_draft_erased", job_id=job_id)

    def _poll(self) -> None:
        try:
            self.run_due()
        except (LedgerUnavailable, StorageUnavailable) as error:
            log.warning("idle_drafts_not_checked", reason=str(error))
