"""Waiting work, throughput, and how full Redis is."""

import math
import time
from dataclasses import dataclass

from redis import Redis

from worker.jobs.ledger.api_keys import WEIGHTS
from worker.jobs.ledger.connection import RedisClient, in_ms
from worker.jobs.ledger.server import server_info
from worker.jobs.record import Job, JobStatus, Lane

MEMORY_READ_S = 1
# From here on Redis has room for the results of the work that it has, and for no new work.
FULL_SHARE = 0.8
_COUNTS = "piqueue:counts"
_READY = "piqueue:ready"


@dataclass(frozen=True)
class OpenItems:
    """The unfinished items of all jobs, and by lane the age of the oldest waiting one, in s."""

    waiting: int
    running: int
    oldest_waiting_s: dict[Lane, float]
    job_count: int


@dataclass(frozen=True)
class Rate:
    """What finished per second during the last minute, all jobs together."""

    items: float
    chunks: float


@dataclass(frozen=True)
class QueuePosition:
    """When a waiting job starts: 1 is the next chunk; seconds at the recent rate, if there is one.

    Both are estimates: jobs that arrive later may go first.
    """

    position: int
    start_s: float | None


class Load(RedisClient):
    """The load of all jobs; every method raises LedgerUnavailable."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self._memory = (0.0, 0, 0)

    def backlog(self, owner: str = "*") -> int:
        """Count the unfinished items of one owner, or of all."""
        return self.backlogs(owner)[0]

    def backlogs(self, *owners: str) -> list[int]:
        """Count the unfinished items of several owners; "*" is all of them."""
        return [int(count or 0) for count in self._redis.hmget(_COUNTS, owners)]

    def upload_bytes(self, owner: str) -> int:
        """Read the size of the uploads of an owner that are stored, in drafts and jobs."""
        return int(self._redis.hget(_COUNTS, f"{owner} bytes") or 0)

    def rate(self) -> Rate:
        """Read the rate of the last minute."""
        seconds, _ = self._redis.time()
        with self._redis.pipeline(transaction=False) as pipe:
            for ago in range(1, 7):
                pipe.hmget(f"piqueue:rate:{seconds // 10 - ago}", "items", "chunks")
            buckets = pipe.execute()
        items, chunks = (
            sum(int(count or 0) for count in one) for one in zip(*buckets, strict=True)
        )
        return Rate(items / 60, chunks / 60)

    def memory_share(self) -> float:
        """How full Redis is, from 0 to 1; 0 without a limit or INFO."""
        used, limit = self._memory_bytes()
        return used / (limit or math.inf)

    def memory_room_bytes(self) -> int | None:
        """How much more Redis takes before new work is refused; None without a limit or INFO."""
        used, limit = self._memory_bytes()
        return max(0, int(limit * FULL_SHARE) - used) if limit else None

    def _memory_bytes(self) -> tuple[int, int]:
        """The memory in use and its limit, read once a second; 0 if unknown."""
        read_at, used, limit = self._memory
        if time.monotonic() - read_at > MEMORY_READ_S or not read_at:
            memory = server_info(self._redis, "memory")
            used, limit = memory.get("used_memory", 0), memory.get("maxmemory", 0)
            self._memory = (time.monotonic(), used, limit)
        return used, limit

    def open_items(self) -> OpenItems:
        """Count the unfinished items; costs the same for any number of jobs."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.time()
            pipe.hmget(_COUNTS, "*", "*jobs")
            pipe.get("piqueue:running")
            for lane in Lane:
                pipe.zrange(f"piqueue:waiting:{lane}", 0, 0, withscores=True)
            now, counts, running, *oldest = pipe.execute()
        unfinished, job_count, leased = (int(count or 0) for count in (*counts, running))
        now_ms = in_ms(now)
        return OpenItems(
            waiting=max(0, unfinished - leased),
            running=leased,
            oldest_waiting_s={
                lane: max(0, now_ms - first[0][1]) / 1000 if first else 0.0
                for lane, first in zip(Lane, oldest, strict=True)
            },
            job_count=job_count,
        )

    def queue_position(self, job: Job) -> QueuePosition | None:
        """Estimate when a job starts whose items all wait; None for any other job."""
        if job.status is not JobStatus.QUEUED:
            return None
        owners, jobs = f"{_READY}:{job.lane}", f"{_READY}:{job.lane}:{job.owner}"
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.zrank(jobs, job.id)
            pipe.zrange(owners, 0, -1)
            pipe.hgetall(WEIGHTS)
            rank, waiting, weights = pipe.execute()
        if rank is None:
            return None
        share = float(weights.get(job.owner.encode(), 1)) / sum(
            float(weights.get(owner, 1)) for owner in waiting
        )
        position = 1 + round(rank / share)
        rate = self.rate().chunks
        return QueuePosition(position, position / rate if rate else None)
