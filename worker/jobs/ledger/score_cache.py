"""The score cache: what a model gave for a picture, by the picture's own hash."""

from dataclasses import replace
from typing import Any

from redis import Redis

from worker.jobs.items import ItemResult, Timings, pack_results, unpack_results
from worker.jobs.ledger.connection import ledger_errors


class ScoreCache:
    """Scores by model and picture, in Redis, each for `ttl_s`."""

    def __init__(self, redis: Redis, ttl_s: int) -> None:
        self._redis: Any = redis
        self._ttl_s = ttl_s

    @staticmethod
    def _key(model_key: str, image_sha256: str) -> str:
        return f"piqueue:scored:{model_key}:{image_sha256}"

    def get(self, model_key: str, image_sha256: str) -> ItemResult | None:
        """Give the result this model had for this picture."""
        with ledger_errors():
            found = self._redis.get(self._key(model_key, image_sha256))
        if found is None:
            return None
        _, (result,) = unpack_results(found)
        return result

    def put(self, model_key: str, result: ItemResult) -> None:
        """Keep a result that has scores."""
        assert result.image is not None
        key = self._key(model_key, result.image.sha256)
        kept = pack_results(0, [replace(result, timings=Timings(), cached=True)])
        with ledger_errors():
            self._redis.set(key, kept, ex=self._ttl_s)
