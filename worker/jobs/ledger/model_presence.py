"""What workers say of their models: which are warm, which they cannot load, which are wanted."""

import json
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from typing import Any

from redis import Redis

from worker.jobs.ledger.connection import ledger_errors
from worker.jobs.ledger.workers import WORKER_SILENT_S
from worker.jobs.record import ModelRef

# A model that no worker could load is forgotten this long after a chunk asked for it last.
WANTED_S = 120
_WANTED = "piqueue:models:wanted"


@dataclass(frozen=True)
class WorkerModels:
    """The models of one worker, by their keys."""

    warm: frozenset[str] = frozenset()
    unable: frozenset[str] = frozenset()


class ModelPresence:
    """Kept in Redis beside the heartbeats, and as long; raises LedgerUnavailable."""

    def __init__(self, redis: Redis) -> None:
        self._redis: Any = redis

    def report(self, worker_id: str, warm: Iterable[str], unable: Iterable[str]) -> None:
        """Say what a worker has and what it cannot load."""
        told = json.dumps([sorted(warm), sorted(unable)])
        with ledger_errors():
            self._redis.set(_key(worker_id), told, ex=WORKER_SILENT_S)

    def of(self, worker_ids: Collection[str]) -> list[WorkerModels]:
        """Give what each of these workers said last."""
        if not worker_ids:
            return []
        with ledger_errors():
            told = self._redis.mget([_key(worker_id) for worker_id in worker_ids])
        return [WorkerModels(*map(frozenset, json.loads(one or "[[], []]"))) for one in told]

    def forget(self, worker_id: str) -> None:
        """Say that a worker has stopped."""
        with ledger_errors():
            self._redis.delete(_key(worker_id))

    def request(self, model: ModelRef) -> float:
        """Say that a chunk waits for a model; gives for how many seconds one has."""
        key = _wanted_key(model.key)
        with ledger_errors(), self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            (now_s, _), *_ = pipe.execute()
            pipe.set(key, json.dumps([asdict(model), now_s]), nx=True)
            pipe.expire(key, WANTED_S)
            pipe.sadd(_WANTED, model.key)
            pipe.get(key)
            *_, found = pipe.execute()
        return float(now_s - json.loads(found)[1])

    def wanted(self) -> list[ModelRef]:
        """List the models that chunks wait for, so that every worker tries to load them."""
        with ledger_errors():
            keys = [key.decode() for key in self._redis.smembers(_WANTED)]
            if not keys:
                return []
            found = self._redis.mget([_wanted_key(key) for key in keys])
            if gone := [key for key, one in zip(keys, found, strict=True) if not one]:
                self._redis.srem(_WANTED, *gone)
        return [ModelRef(**json.loads(one)[0]) for one in found if one]

    def fulfil(self, model: ModelRef) -> None:
        """Say that a worker has loaded a model that chunks waited for."""
        with ledger_errors():
            self._redis.delete(_wanted_key(model.key))


def _key(worker_id: str) -> str:
    return f"piqueue:models:{worker_id}"


def _wanted_key(key: str) -> str:
    return f"{_WANTED}:{key}"
