"""The blob store: uploaded payloads, stored until they are scored or their job expires."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from redis import Redis

from worker.jobs.ledger.connection import RedisClient
from worker.jobs.ledger.layout import job_key
from worker.jobs.settings import IN_REDIS, Settings, require_boto3

if TYPE_CHECKING:
    from worker.jobs.storage.parts import ResultParts


class BlobStore(Protocol):
    """Payloads by job and item id."""

    def put(self, job_id: str, payloads: Mapping[str, bytes], ttl_s: int) -> None:
        """Store payloads; all payloads of the job then expire in `ttl_s`."""

    def keep(self, job_id: str, ttl_s: int) -> None:
        """Let the payloads of a job expire in `ttl_s`."""

    def get(self, job_id: str, item_ids: Iterable[str]) -> Iterator[bytes | None]:
        """Read payloads in this order; None for a missing one."""

    def discard(self, job_id: str, item_ids: Sequence[str]) -> None:
        """Delete payloads."""

    def erase(self, job_id: str) -> None:
        """Delete all payloads of a job."""


class RedisBlobs(RedisClient):
    """A `BlobStore` in Redis: one hash for each job."""

    @staticmethod
    def _key(job_id: str) -> str:
        return job_key(job_id, "blobs")

    def put(self, job_id: str, payloads: Mapping[str, bytes], ttl_s: int) -> None:
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(self._key(job_id), mapping=payloads)
            pipe.expire(self._key(job_id), ttl_s)
            pipe.execute()

    def keep(self, job_id: str, ttl_s: int) -> None:
        self._redis.expire(self._key(job_id), ttl_s)

    def get(self, job_id: str, item_ids: Iterable[str]) -> Iterator[bytes | None]:
        for item_id in item_ids:
            payload: bytes | None = self._redis.hget(self._key(job_id), item_id)
            yield payload

    def discard(self, job_id: str, item_ids: Sequence[str]) -> None:
        if item_ids:
            self._redis.hdel(self._key(job_id), *item_ids)

    def erase(self, job_id: str) -> None:
        self._redis.unlink(self._key(job_id))


def open_storage(settings: Settings, redis: Redis) -> tuple[BlobStore, "ResultParts | None"]:
    """Open the blobs and result files of PIQUEUE_STORAGE_URL; None if results are only in Redis."""
    if settings.storage_url == IN_REDIS:
        return RedisBlobs(redis), None
    require_boto3()
    from worker.jobs.s3 import Folder
    from worker.jobs.storage.parts import ResultParts
    from worker.jobs.storage.s3_blobs import S3Blobs

    folder = Folder.open(settings, settings.storage_url)
    return S3Blobs(folder, redis), ResultParts(folder, redis)
