"""The blob store in Redis: one hash for each job."""

from collections.abc import Iterable, Iterator, Mapping, Sequence

from redis import Redis

from worker.jobs.ledger.connection import RedisClient
from worker.jobs.ledger.layout import job_key
from worker.jobs.ledger.load import Load

# Larger payloads would take long in one step of Redis, and much memory of a worker that claims
# several jobs at once.
SMALL_BYTES = 2_000_000
# What may be stored elsewhere, or not at all, is stored in Redis while it is at most half full.
SMALL_SHARE = 0.5


class RedisBlobs(RedisClient):
    """A `BlobStore` in Redis."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self._load = Load(redis)

    @staticmethod
    def _key(job_id: str) -> str:
        return job_key(job_id, "blobs")

    def put(self, job_id: str, payloads: Mapping[str, bytes], ttl_s: int) -> None:
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.hset(self._key(job_id), mapping=payloads)
            pipe.expire(self._key(job_id), ttl_s)
            pipe.execute()

    def goes_with_job(self, payloads: Mapping[str, bytes], /) -> bool:
        return sum(map(len, payloads.values())) <= SMALL_BYTES

    def keep(self, job_id: str, ttl_s: int) -> None:
        """Do nothing: the step that submits the job keeps them, and they are erased with it."""

    def has(self, job_id: str) -> bool:
        """Whether any payload of a job is stored."""
        return bool(self._redis.exists(self._key(job_id)))

    def get(self, job_id: str, item_ids: Iterable[str]) -> Iterator[bytes | None]:
        for item_id in item_ids:
            payload: bytes | None = self._redis.hget(self._key(job_id), item_id)
            yield payload

    def expect_thumbnails(self, job_id: str, ttl_s: int) -> None:
        """Do nothing: the commit stores them, and they are erased with their job."""

    def put_thumbnails(self, _job_id: str, _chunk_index: int, packed: bytes, /) -> bytes | None:
        """Leave them to the commit, while Redis is at most half full."""
        return packed if self._load.memory_share() <= SMALL_SHARE else None

    def thumbnails(self, job_id: str, chunk_index: int) -> bytes | None:
        found: bytes | None = self._redis.hget(job_key(job_id, "thumbnails"), str(chunk_index))
        return found

    def discard(self, job_id: str, item_ids: Sequence[str]) -> None:
        """Do nothing: the commit has deleted them."""

    def erase(self, job_id: str) -> None:
        self.remove(job_id)

    def remove(self, job_id: str) -> None:
        self._redis.unlink(self._key(job_id))

    # They would fill the memory of Redis.
    keeps_features = False

    def put_features(self, job_id: str, blocks: Mapping[str, bytes]) -> None:
        """Never called: the API refuses jobs that keep features."""
        raise NotImplementedError

    def get_features(self, _job_id: str, names: Sequence[str]) -> Iterator[bytes | None]:
        """None for each."""
        return (None for _ in names)

    def room_bytes(self) -> int | None:
        return self._load.memory_room_bytes()
