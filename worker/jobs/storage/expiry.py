"""When the files or S3 objects of jobs expire."""

from collections.abc import Callable

import structlog
from redis import Redis

from worker.jobs.errors import StorageUnavailable
from worker.jobs.ledger.schedule import Schedule

# An erased job is erased again after this time, with what was written meanwhile.
ERASE_AGAIN_S = 60

log = structlog.get_logger()


class ExpiryIndex(Schedule):
    """Jobs with files or S3 objects by when they expire; workers erase what is due."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis, "piqueue:object-expiry")

    def keep(self, job_id: str, ttl_s: float) -> None:
        """Let what is stored of a job, if anything is, expire in `ttl_s`."""
        self.move(job_id, ttl_s)

    def clear(self, job_id: str, remove: Callable[[str], None]) -> None:
        """Erase what is stored of a job, if anything is; a worker continues if that fails."""
        if not self.move(job_id, ERASE_AGAIN_S):
            return
        try:
            remove(job_id)
        except StorageUnavailable as error:
            log.warning("erasure_deferred", job_id=job_id, reason=str(error))
