"""The score cache: what a model gave for a picture, by the picture's own hash."""

import json
from typing import Any

from redis import Redis

from worker.jobs.record import ImageFacts, ItemResult
from worker.jobs.store import ledger_errors


class ScoreCache:
    """Scores by model and picture, in Redis, each for `ttl_s`."""

    def __init__(self, redis: Redis, ttl_s: int) -> None:
        self._redis: Any = redis
        self._ttl_s = ttl_s

    @staticmethod
    def _key(model_sha256: str, image_sha256: str) -> str:
        return f"piqueue:score:{model_sha256[:16]}:{image_sha256}"

    def get(self, model_sha256: str, image_sha256: str) -> ItemResult | None:
        """Give the result this model had for this picture."""
        with ledger_errors():
            found = self._redis.get(self._key(model_sha256, image_sha256))
        if found is None:
            return None
        scores, image = json.loads(found)
        return ItemResult(scores=tuple(scores), image=ImageFacts(image_sha256, *image), cached=True)

    def put(self, model_sha256: str, result: ItemResult) -> None:
        """Keep a result that has scores."""
        assert result.image is not None
        image = result.image
        facts = [image.byte_count, image.format, image.width, image.height]
        with ledger_errors():
            self._redis.set(
                self._key(model_sha256, image.sha256),
                json.dumps([result.scores, facts]),
                ex=self._ttl_s,
            )
