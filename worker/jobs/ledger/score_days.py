"""How the scores of each model were distributed on each of the last days."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta

from worker.jobs.ledger.connection import RedisClient
from worker.jobs.models.artifact import SCORE_BINS

# Days, in UTC, that are kept; today is the last of them.
DAYS = 7

# Counts of each bin, by label.
Counts = Mapping[str, Sequence[int]]


class ScoreDays(RedisClient):
    """Counts in Redis by model, day, label and bin; every method raises LedgerUnavailable.

    A model has at most 21 labels here; `model.artifact.score_counts` says why.
    """

    def add(self, counts: Mapping[str, Counts]) -> None:
        """Add to the counts of today, by the key of the model; they expire after `DAYS`."""
        if not counts:
            return
        with self._redis.pipeline(transaction=True) as pipe:
            for model_key, of_model in counts.items():
                key = _key(model_key, _days()[0])
                for label, of_label in of_model.items():
                    for index, count in enumerate(of_label):
                        if count:
                            pipe.hincrby(key, f"{index}:{label}", count)
                pipe.expire(key, timedelta(days=DAYS))
            pipe.execute()

    def read(self, model_keys: Iterable[str]) -> dict[str, dict[str, Counts]]:
        """The counts of each model by day (`2026-11-27`), the newest first; not of empty days."""
        model_keys, days = list(model_keys), _days()
        with self._redis.pipeline(transaction=False) as pipe:
            for model_key in model_keys:
                for day in days:
                    pipe.hgetall(_key(model_key, day))
            found = iter(pipe.execute())
        return {
            model_key: {day: _counts(fields) for day in days if (fields := next(found))}
            for model_key in model_keys
        }


def today() -> str:
    """The current day in UTC."""
    return _days()[0]


def _days() -> list[str]:
    now = datetime.now(UTC)
    return [f"{now - timedelta(days=ago):%Y-%m-%d}" for ago in range(DAYS)]


def _key(model_key: str, day: str) -> str:
    return f"piqueue:scores:{day}:{model_key}"


def _counts(fields: Mapping[bytes, bytes]) -> Counts:
    counts: dict[str, list[int]] = {}
    for field, count in fields.items():
        index, _, label = field.decode().partition(":")
        counts.setdefault(label, [0] * SCORE_BINS)[int(index)] = int(count)
    return counts
