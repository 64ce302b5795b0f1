"""API keys, of which only hashes are stored."""

import hashlib
import json
import secrets
import time
from dataclasses import dataclass

from redis import Redis

from worker.jobs.ledger.connection import RedisClient

PREFIX = "pq_"
# The owner of all jobs while no key exists.
ANYONE = "anyone"
_KEYS = "piqueue:keys"
# Every API process requires a key this long after the first one was made.
NONE_LATELY_S = 1.0


@dataclass(frozen=True)
class ApiKey:
    """A caller; `owner` is the id of its jobs."""

    owner: str
    name: str


class KeyStore(RedisClient):
    """API keys in Redis, as SHA-256; a key has 256 random bits, so a slow hash adds nothing."""

    def __init__(self, redis: Redis) -> None:
        # Whether requests need a key even when none exists.
        self.required = False
        super().__init__(redis)
        self._none_until = 0.0

    @property
    def none_lately(self) -> bool:
        """Whether `all` found no key within the last second."""
        return time.monotonic() < self._none_until

    def add(self, name: str) -> str:
        """Create a key and return it; it cannot be read again."""
        key = PREFIX + secrets.token_urlsafe(32)
        fields = json.dumps({"owner": secrets.token_hex(6), "name": name})
        self._redis.hset(_KEYS, _hash(key), fields)
        return key

    def find(self, key: str) -> ApiKey | None:
        """The caller of a key, None if the key is unknown."""
        fields = self._redis.hget(_KEYS, _hash(key))
        return fields and ApiKey(**json.loads(fields))

    def all(self) -> list[ApiKey]:
        """List the callers, by name."""
        keys = [ApiKey(**json.loads(fields)) for fields in self._redis.hvals(_KEYS)]
        self._none_until = 0.0 if keys else time.monotonic() + NONE_LATELY_S
        return sorted(keys, key=lambda key: key.name)

    def remove(self, owner: str) -> bool:
        """Revoke the key of an owner; False if there is none."""
        for hashed, fields in self._redis.hgetall(_KEYS).items():
            if json.loads(fields)["owner"] == owner:
                return bool(self._redis.hdel(_KEYS, hashed))
        return False


def _hash(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()
