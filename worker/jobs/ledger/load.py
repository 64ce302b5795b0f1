"""Waiting work, throughput, and how full Redis is."""

import time
from dataclasses import dataclass
from heapq import nsmallest

from redis import Redis

from worker.jobs.ledger.connection import RedisClient, in_ms
from worker.jobs.ledger.layout import job_key, running_items

OPEN_JOBS_READ = 1000
MEMORY_READ_S = 1
# Unfinished items by job.
OPEN = "piqueue:open"
_BACKLOG = "piqueue:backlog"


@dataclass(frozen=True)
class OpenItems:
    """The unfinished items of all jobs, and the age of the oldest waiting one."""

    waiting: int
    running: int
    oldest_waiting_s: float
    job_count: int


class Load(RedisClient):
    """The load of all jobs; every method raises LedgerUnavailable."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self._memory = (0.0, 0.0)

    def backlog(self, owner: str = "*") -> int:
        """Count the unfinished items of one owner, or of all."""
        return self.backlogs(owner)[0]

    def backlogs(self, *owners: str) -> list[int]:
        """Count the unfinished items of several owners; "*" is all of them."""
        return [int(count or 0) for count in self._redis.hmget(_BACKLOG, owners)]

    def rate_per_s(self) -> float:
        """Items finished per second during the last minute, all jobs together."""
        seconds, _ = self._redis.time()
        buckets = [f"piqueue:rate:{seconds // 10 - ago}" for ago in range(1, 7)]
        return sum(int(count or 0) for count in self._redis.mget(buckets)) / 60

    def memory_share(self) -> float:
        """How full the memory of Redis is, from 0 to 1, read once a second; 0 without a limit."""
        read_at, share = self._memory
        if time.monotonic() - read_at > MEMORY_READ_S or not read_at:
            memory = self._redis.info("memory")
            share = memory["used_memory"] / memory["maxmemory"] if memory["maxmemory"] else 0.0
            self._memory = (time.monotonic(), share)
        return share

    def open_items(self) -> OpenItems:
        """Count the unfinished items; only the oldest jobs are read for running ones."""
        unfinished = {
            job_id.decode(): int(count.split()[0])
            for job_id, count in self._redis.hgetall(OPEN).items()
        }
        oldest = nsmallest(OPEN_JOBS_READ, unfinished)
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            for job_id in oldest:
                meta = job_key(job_id, "meta")
                pipe.hmget(meta, "total", "chunk_items", "submitted_ms")
                pipe.zrange(job_key(job_id, "lease"), 0, -1)
            now, *read = pipe.execute()
        now_ms = in_ms(now)
        all_running, oldest_ms = 0, now_ms
        for job_id, fields, leased in zip(oldest, read[::2], read[1::2], strict=True):
            if None in fields:  # erased or expired meanwhile
                continue
            total, chunk_items, submitted_ms = map(int, fields)
            running = min(running_items(leased, total, chunk_items), unfinished[job_id])
            all_running += running
            if unfinished[job_id] > running:
                oldest_ms = min(oldest_ms, submitted_ms)
        return OpenItems(
            waiting=sum(unfinished.values()) - all_running,
            running=all_running,
            oldest_waiting_s=(now_ms - oldest_ms) / 1000,
            job_count=len(unfinished),
        )
