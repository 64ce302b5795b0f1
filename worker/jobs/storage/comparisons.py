"""Jobs whose pictures somebody wants compared with each other."""

from redis import Redis

from worker.jobs.ledger.schedule import Schedule


class Comparisons(Schedule):
    """Jobs by when their comparison is due; any worker may claim one."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis, "piqueue:comparisons")

    def request(self, job_id: str) -> None:
        """Let a worker compare the pictures of a job, unless one is to do so or does so."""
        if not self.has(job_id):
            self.put(job_id, 0)
