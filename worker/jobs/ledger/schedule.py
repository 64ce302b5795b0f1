"""Jobs in Redis by when they are due; any worker may claim one."""

from redis import Redis

from worker.jobs.ledger.connection import RedisClient, in_ms

_CLAIM = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local due = tonumber(redis.call('ZSCORE', KEYS[1], ARGV[1]))
if not due or due > now then return 0 end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
return 1
"""


class Schedule(RedisClient):
    """Jobs by when they are due; a claimed job is due again when its lease ends."""

    def __init__(self, redis: Redis, key: str) -> None:
        super().__init__(redis)
        self._key = key
        self._claim = redis.register_script(_CLAIM)

    def put(self, job_id: str, delay_s: float) -> None:
        """Schedule a job in `delay_s`, whether or not it is scheduled."""
        self._redis.zadd(self._key, {job_id: self._in_ms(delay_s)})

    def move(self, job_id: str, delay_s: float) -> bool:
        """Reschedule a job in `delay_s`; False, without a change, if it is not scheduled."""
        self._redis.zadd(self._key, {job_id: self._in_ms(delay_s)}, xx=True)
        return self._redis.zscore(self._key, job_id) is not None

    def due(self, count: int) -> list[str]:
        """List at most `count` due jobs, the longest due first."""
        first = self._redis.zrange(
            self._key, "-inf", self._in_ms(0), byscore=True, offset=0, num=count
        )
        return [job_id.decode() for job_id in first]

    def claim(self, job_id: str, lease_s: float) -> bool:
        """Claim a due job for `lease_s`; False if another worker has it or it is not scheduled."""
        return bool(self._claim(keys=[self._key], args=[job_id, int(lease_s * 1000)]))

    def remove(self, job_id: str) -> None:
        """Remove a job from the schedule."""
        self._redis.zrem(self._key, job_id)

    def _in_ms(self, delay_s: float) -> int:
        """The time in `delay_s`, by the clock of Redis."""
        return in_ms(self._redis.time()) + int(delay_s * 1000)
