"""Looks after S3 beside the scoring: manifests of finished jobs, and objects that expired."""

import threading
from collections.abc import Callable

import structlog
from redis import Redis

from worker.jobs.errors import JobNotFound, LedgerUnavailable, StorageUnavailable
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.reader import JobReader
from worker.jobs.ledger.schedule import Schedule
from worker.jobs.settings import IN_REDIS, Settings

POLL_S = 0.5
BATCH = 16
# A job is another worker's to take when nothing was heard for this long.
LEASE_S = 60
# After S3 was away.
AGAIN_S = 5
MANIFESTS = "piqueue:manifests"

log = structlog.get_logger()


class Archivist:
    """A thread that works off what is due, until stopped; the lists in Redis keep the rest."""

    def __init__(self, settings: Settings, redis: Redis) -> None:
        # Loads boto3, so only where S3 is set up.
        from worker.jobs.s3 import Folder
        from worker.jobs.storage.expiry_index import ExpiryIndex
        from worker.jobs.storage.parts import ResultParts

        self._jobs = JobReader(redis)
        self._manifests = Schedule(redis, MANIFESTS)
        self._shelf = ExpiryIndex(redis)
        self._folder = Folder.open(settings, settings.storage_url)
        self._parts = ResultParts(self._folder, redis)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="archive", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Take no further job, and give the one under way a moment."""
        self._stopping.set()
        self._thread.join(AGAIN_S)

    def work_off(self) -> None:
        """Do what is due now."""
        self._each(self._manifests, self._write_manifest)
        self._each(self._shelf, self._erase)

    def _run(self) -> None:
        while not self._stopping.wait(POLL_S):
            try:
                self.work_off()
            except LedgerUnavailable as error:
                log.warning("archive_waits", reason=str(error))

    def _each(self, jobs: Schedule, work: Callable[[str], None]) -> None:
        for job_id in jobs.due(BATCH):
            if self._stopping.is_set() or not jobs.claim(job_id, LEASE_S):
                continue
            try:
                work(job_id)
            except JobNotFound:
                pass
            except StorageUnavailable as error:
                log.warning("expiry_deferred", job_id=job_id, reason=str(error))
                jobs.move(job_id, AGAIN_S)
                continue
            jobs.remove(job_id)

    def _write_manifest(self, job_id: str) -> None:
        job, model = self._jobs.job(job_id), self._jobs.model(job_id)

        def go_on() -> None:
            if not self._manifests.move(job_id, LEASE_S):
                raise JobNotFound(job_id)

        self._parts.finish(job, model, self._jobs.results(job), go_on)
        log.info("manifest_written", job_id=job_id)

    def _erase(self, job_id: str) -> None:
        self._folder.delete_under(f"{job_id}/")
        log.info("objects_erased", job_id=job_id)


def open_archivist(settings: Settings) -> Archivist | None:
    """Give the archivist of a worker process, None where nothing is kept on S3."""
    if settings.storage_url == IN_REDIS:
        return None
    return Archivist(settings, connect(settings.redis_url, retry_silence=True))
