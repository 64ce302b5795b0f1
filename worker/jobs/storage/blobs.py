"""The blob store: uploaded bytes, kept until they are scored or their job expires."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from redis import Redis

from worker.jobs.ledger.connection import ledger_errors
from worker.jobs.ledger.layout import job_key


class BlobStore(Protocol):
    """Payloads by job and item id, given and read as many at once as suits the store."""

    def put(self, job_id: str, payloads: Mapping[str, bytes], ttl_s: int) -> None:
        """Keep payloads, and the others of their job, for at most `ttl_s` from now."""

    def keep(self, job_id: str, ttl_s: int) -> None:
        """Keep the payloads that a job has for `ttl_s` from now."""

    def get(self, job_id: str, item_ids: Iterable[str]) -> Iterator[bytes | None]:
        """Read payloads in this order; None for one that is not there."""

    def discard(self, job_id: str, item_ids: Sequence[str]) -> None:
        """Forget payloads."""

    def erase(self, job_id: str) -> None:
        """Forget every payload of a job."""


class RedisBlobs:
    """Payloads in one Redis hash a job."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    @staticmethod
    def _key(job_id: str) -> str:
        return job_key(job_id, "blobs")

    def put(self, job_id: str, payloads: Mapping[str, bytes], ttl_s: int) -> None:
        """Keep payloads, and the others of their job, for at most `ttl_s` from now."""
        with ledger_errors(), self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(self._key(job_id), mapping=payloads)
            pipe.expire(self._key(job_id), ttl_s)
            pipe.execute()

    def keep(self, job_id: str, ttl_s: int) -> None:
        """Keep the payloads that a job has for `ttl_s` from now."""
        with ledger_errors():
            self._redis.expire(self._key(job_id), ttl_s)

    def get(self, job_id: str, item_ids: Iterable[str]) -> Iterator[bytes | None]:
        """Read payloads in this order; None for one that is not there."""
        for item_id in item_ids:
            with ledger_errors():
                payload: bytes | None = self._redis.hget(self._key(job_id), item_id)
            yield payload

    def discard(self, job_id: str, item_ids: Sequence[str]) -> None:
        """Forget payloads."""
        if item_ids:
            with ledger_errors():
                self._redis.hdel(self._key(job_id), *item_ids)

    def erase(self, job_id: str) -> None:
        """Forget every payload of a job."""
        with ledger_errors():
            self._redis.unlink(self._key(job_id))
