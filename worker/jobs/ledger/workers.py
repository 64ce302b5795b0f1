"""Which workers are alive, and which one of them runs recovery."""

from worker.jobs.ledger.connection import RedisClient

# A worker without a heartbeat for this long counts as dead.
WORKER_SILENT_S = 15
_WORKERS = "piqueue:workers"
_LEADER = "piqueue:recovery-leader"


class Workers(RedisClient):
    """The heartbeats of workers in Redis; every method raises LedgerUnavailable."""

    def elect_recovery_leader(self, worker_id: str, term_s: float) -> bool:
        """Elect one worker for a term; True for the one that is elected."""
        return bool(self._redis.set(_LEADER, worker_id, nx=True, px=int(term_s * 1000)))

    def heartbeat(self, worker_id: str, slots: int) -> None:
        """Record that a worker is alive and runs `slots` chunks at a time."""
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.set(_key(worker_id), slots, ex=WORKER_SILENT_S)
            pipe.sadd(_WORKERS, worker_id)
            pipe.execute()

    def forget(self, worker_id: str) -> None:
        """Record that a worker has stopped."""
        self._redis.delete(_key(worker_id))
        self._redis.srem(_WORKERS, worker_id)

    def live(self) -> dict[str, int]:
        """The slots of each live worker, by its id."""
        ids = [worker_id.decode() for worker_id in self._redis.smembers(_WORKERS)]
        slots = self._redis.mget([_key(worker_id) for worker_id in ids] or [""])
        live = {worker: int(count) for worker, count in zip(ids, slots, strict=False) if count}
        if gone := set(ids) - set(live):
            self._redis.srem(_WORKERS, *gone)
        return live


def _key(worker_id: str) -> str:
    return f"piqueue:worker:{worker_id}"
