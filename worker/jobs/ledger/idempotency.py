"""Idempotency keys: a repeated submission returns the same job."""

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from redis import Redis

from worker.jobs.errors import IdempotencyInFlight, LedgerUnavailable
from worker.jobs.ledger.connection import RedisClient, ledger_errors
from worker.jobs.ledger.functions import Library
from worker.jobs.ledger.layout import ExpiringKey

# The key of a submission whose API process died is free after this long; others renew theirs.
IN_FLIGHT_TTL_S = 20
_RENEW_EVERY_S = 5
_IN_FLIGHT = b"in flight"
_LUA = """
offer('release_key', function()
  if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end
end)
"""


@dataclass(frozen=True)
class Replay:
    """The earlier use of an idempotency key."""

    fingerprint: str
    job_id: str


class IdempotencyKeys(RedisClient):
    """Idempotency keys of each owner, stored for `ttl_s`."""

    def __init__(self, redis: Redis, ttl_s: int) -> None:
        super().__init__(redis)
        self._ttl_s = ttl_s
        self._library = Library(redis, "idempotency", _LUA)

    @staticmethod
    def _key(owner: str, key: str) -> str:
        return f"piqueue:idempotency:{owner}:{hashlib.sha256(key.encode()).hexdigest()}"

    def begin(self, owner: str, key: str) -> Replay | None:
        """Claim a key, or return its earlier use.

        Raises:
            IdempotencyInFlight: a submission with this key is still in progress.
        """
        name = self._key(owner, key)
        before = self._redis.set(name, _IN_FLIGHT, nx=True, get=True, ex=IN_FLIGHT_TTL_S)
        if before is None:
            return None
        if before == _IN_FLIGHT:
            raise IdempotencyInFlight(
                "a submission with this Idempotency-Key is still in progress: retry later"
            )
        return Replay(*before.decode().split())

    @contextmanager
    def renewed(self, owner: str, key: str) -> Iterator[None]:
        """Renew a key that `begin` claimed while the block runs, however slowly a body arrives."""
        name, over = self._key(owner, key), threading.Event()

        def renew() -> None:
            while not over.wait(_RENEW_EVERY_S):
                with suppress(LedgerUnavailable), ledger_errors():
                    self._redis.expire(name, IN_FLIGHT_TTL_S)

        renewing = threading.Thread(target=renew, name="idempotency-key", daemon=True)
        renewing.start()
        try:
            yield
        finally:
            over.set()
            renewing.join()

    def entry(self, owner: str, key: str, fingerprint: str, job_id: str) -> ExpiringKey:
        """The entry that maps a key to its job; it is written together with that job."""
        return ExpiringKey(self._key(owner, key), f"{fingerprint} {job_id}", self._ttl_s)

    def release(self, owner: str, key: str) -> None:
        """Free a key, unless a job was created although the caller got no answer."""
        self._library.call("release_key", [_IN_FLIGHT], [self._key(owner, key)])
