"""The expiry index: which jobs have objects on S3, and when the objects expire."""

import structlog
from redis import Redis

from worker.jobs.errors import StorageUnavailable
from worker.jobs.ledger.schedule import Schedule
from worker.jobs.s3 import Folder

# An erased job is erased again after this time, with the objects that were written meanwhile.
ERASE_AGAIN_S = 60

log = structlog.get_logger()


class ExpiryIndex(Schedule):
    """Jobs with objects on S3 by when they expire; workers erase what is due."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis, "piqueue:object-expiry")

    def keep(self, job_id: str, ttl_s: float) -> None:
        """Let the objects of a job, if it has any, expire in `ttl_s`."""
        self.move(job_id, ttl_s)

    def clear(self, job_id: str, folder: Folder) -> None:
        """Erase the objects of a job, if it has any; a worker continues if S3 does not answer."""
        if not self.move(job_id, ERASE_AGAIN_S):
            return
        try:
            folder.delete_under(f"{job_id}/")
        except StorageUnavailable as error:
            log.warning("erasure_deferred", job_id=job_id, reason=str(error))
