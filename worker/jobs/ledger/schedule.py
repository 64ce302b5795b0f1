"""Jobs in Redis by when they are due; any worker may claim one."""

from typing import Any

from redis import Redis

from worker.jobs.ledger.connection import RedisClient
from worker.jobs.ledger.functions import Library

_LUA = """
offer('put', function() redis.call('ZADD', KEYS[1], now_ms() + ARGV[2], ARGV[1]) end)
offer('move', function()
  redis.call('ZADD', KEYS[1], 'XX', now_ms() + ARGV[2], ARGV[1])
  return redis.call('ZSCORE', KEYS[1], ARGV[1])
end)
offer('due', function()
  if redis.call('EXISTS', KEYS[1]) == 0 then return {} end
  return redis.call('ZRANGE', KEYS[1], '-inf', now_ms(), 'BYSCORE', 'LIMIT', 0, ARGV[1])
end)
offer('claim', function()
  local due = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]))
  if not due or due > now_ms() then return 0 end
  redis.call('ZADD', KEYS[1], now_ms() + ARGV[2], ARGV[1])
  return 1
end)
"""


class Schedule(RedisClient):
    """Jobs by when they are due; a claimed job is due again when its lease ends."""

    def __init__(self, redis: Redis, key: str) -> None:
        super().__init__(redis)
        self._key = key
        self._library = Library(redis, "schedule", _LUA)

    def _call(self, function: str, *args: str | int) -> Any:
        return self._library.call(function, args, [self._key])

    def put(self, job_id: str, delay_s: float) -> None:
        """Schedule a job in `delay_s`, whether or not it is scheduled."""
        self._call("put", job_id, int(delay_s * 1000))

    def move(self, job_id: str, delay_s: float) -> bool:
        """Reschedule a job in `delay_s`; False, without a change, if it is not scheduled."""
        return self._call("move", job_id, int(delay_s * 1000)) is not None

    def due(self, count: int) -> list[str]:
        """List at most `count` due jobs, the longest due first."""
        return [job_id.decode() for job_id in self._call("due", count)]

    def claim(self, job_id: str, lease_s: float) -> bool:
        """Claim a due job for `lease_s`; False if another worker has it or it is not scheduled."""
        return bool(self._call("claim", job_id, int(lease_s * 1000)))

    def has(self, job_id: str) -> bool:
        """Whether a job is scheduled."""
        return self._redis.zscore(self._key, job_id) is not None

    def remove(self, job_id: str) -> None:
        """Remove a job from the schedule."""
        self._redis.zrem(self._key, job_id)
