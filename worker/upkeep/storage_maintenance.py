"""Maintains stored files: writes manifests of finished jobs to S3, erases what has expired."""

import time
from collections.abc import Callable

import structlog
from redis import Redis

from worker.jobs.errors import JobNotFound, LedgerUnavailable, StorageUnavailable
from worker.jobs.ledger.reader import JobReader
from worker.jobs.ledger.schedule import Schedule
from worker.jobs.settings import Settings
from worker.jobs.storage.blobs import open_storage
from worker.jobs.storage.expiry import ExpiryIndex
from worker.jobs.storage.file_blobs import LEFT_OVER_S, FileBlobs
from worker.upkeep.periodic import PeriodicThread

POLL_S = 0.5
# Without S3 nobody waits for a manifest.
POLL_FILES_S = 5.0
BATCH = 16
# Another worker takes a job over if its lease is not renewed for this long.
LEASE_S = 60
# The delay of a job after S3 was unavailable.
RETRY_S = 5
MANIFESTS = "piqueue:manifests"

log = structlog.get_logger()


class StorageMaintenance(PeriodicThread):
    """Does what is due, until stopped; the schedules in Redis keep the rest."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._blobs, self._parts = open_storage(settings, redis)
        period_s = POLL_S if self._parts else POLL_FILES_S
        super().__init__("storage", period_s, self._poll, stop_s=RETRY_S)
        self._jobs = JobReader(redis)
        self._manifests = Schedule(redis, MANIFESTS)
        self._expiry_index = ExpiryIndex(redis)
        self._left_over_due = 0.0

    def run_due(self) -> None:
        """Do what is due now."""
        self._run_each(self._manifests, self._write_manifest)
        self._run_each(self._expiry_index, self._erase)
        self._remove_left_over()

    def _remove_left_over(self) -> None:
        """Once an hour, erase files of jobs that are in no schedule, as after a crash."""
        if not isinstance(self._blobs, FileBlobs) or time.monotonic() < self._left_over_due:
            return
        self._left_over_due = time.monotonic() + LEFT_OVER_S
        try:
            for job_id in self._blobs.remove_left_over():
                log.warning("left_over_files_erased", job_id=job_id)
        except StorageUnavailable as error:
            log.error("left_over_files_kept", reason=str(error))

    def _poll(self) -> None:
        try:
            self.run_due()
        except LedgerUnavailable as error:
            log.warning("storage_maintenance_failed", reason=str(error))

    def _run_each(self, jobs: Schedule, work: Callable[[str], None]) -> None:
        for job_id in jobs.due(BATCH):
            if self.stopping.is_set() or not jobs.claim(job_id, LEASE_S):
                continue
            try:
                work(job_id)
            except JobNotFound:
                pass
            except StorageUnavailable as error:
                log.warning("storage_maintenance_deferred", job_id=job_id, reason=str(error))
                jobs.move(job_id, RETRY_S)
                continue
            jobs.remove(job_id)

    def _write_manifest(self, job_id: str) -> None:
        assert self._parts is not None, "only jobs with result files are scheduled"
        job, model = self._jobs.job(job_id), self._jobs.model(job_id)

        def renew_lease() -> None:
            if not self._manifests.move(job_id, LEASE_S):
                raise JobNotFound(job_id)

        self._parts.finish(job, model, self._jobs.results(job), renew_lease)
        log.info("manifest_written", job_id=job_id)

    def _erase(self, job_id: str) -> None:
        self._blobs.remove(job_id)
        log.info("objects_erased", job_id=job_id)
