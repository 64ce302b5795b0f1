"""The score cache: results by model and by the hash of the picture."""

from dataclasses import replace

from redis import Redis

from worker.jobs.items import ItemResult, Timings, pack_results, unpack_results
from worker.jobs.ledger.connection import RedisClient


class ScoreCache(RedisClient):
    """Results in Redis, each stored for `ttl_s`."""

    def __init__(self, redis: Redis, ttl_s: int) -> None:
        super().__init__(redis)
        self._ttl_s = ttl_s

    @staticmethod
    def _key(model_key: str, image_sha256: str) -> str:
        return f"piqueue:scored:{model_key}:{image_sha256}"

    def get(self, model_key: str, image_sha256: str) -> ItemResult | None:
        """The result of a model for a picture, None if it is not stored."""
        found = self._redis.get(self._key(model_key, image_sha256))
        if found is None:
            return None
        _, (result,) = unpack_results(found)
        return result

    def put(self, model_key: str, result: ItemResult) -> None:
        """Store a result that has scores."""
        assert result.image is not None
        key = self._key(model_key, result.image.sha256)
        kept = pack_results(0, [replace(result, timings=Timings(), cached=True)])
        self._redis.set(key, kept, ex=self._ttl_s)
