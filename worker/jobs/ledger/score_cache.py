"""The score cache: results by owner, by variant of a model and by the hash of the picture."""

from dataclasses import replace
from functools import lru_cache

from redis import Redis

from worker.jobs.items import ItemResult, Timings, pack_results, unpack_results
from worker.jobs.ledger.connection import RedisClient
from worker.jobs.ledger.layout import job_key

_SHARED = "shared"


class ScoreCache(RedisClient):
    """Results in Redis, each stored for `ttl_s`.

    Each owner has its own: a result that says `cached` would tell others that somebody submitted
    the picture. With `shared`, all owners have the same.
    """

    def __init__(self, redis: Redis, ttl_s: int, *, shared: bool = False) -> None:
        super().__init__(redis)
        self._ttl_s = ttl_s
        self._shared = shared
        self._owner_of = lru_cache(maxsize=1000)(self._read_owner)

    def get(
        self, job_id: str, model_key: str, variant: str, image_sha256: str
    ) -> ItemResult | None:
        """The result of a model's variant for a picture of this job, None if it is not stored."""
        found = self._redis.get(self._key(job_id, model_key, variant, image_sha256))
        if found is None:
            return None
        _, (result,) = unpack_results(found)
        return result

    def put(self, job_id: str, model_key: str, result: ItemResult) -> None:
        """Store a result of this job that has scores."""
        assert result.image is not None
        assert result.variant is not None
        key = self._key(job_id, model_key, result.variant, result.image.sha256)
        kept = pack_results(0, [replace(result, timings=Timings(), cached=True)])
        self._redis.set(key, kept, ex=self._ttl_s)

    def _key(self, job_id: str, model_key: str, variant: str, image_sha256: str) -> str:
        owner = _SHARED if self._shared else self._owner_of(job_id)
        return f"piqueue:scored:{owner}:{model_key}:{variant}:{image_sha256}"

    def _read_owner(self, job_id: str) -> str:
        """The owner of a job; that of an erased job is its id, which no other job has."""
        owner = self._redis.hget(job_key(job_id, "meta"), "owner")
        return owner.decode() if owner else job_id
