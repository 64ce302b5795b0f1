"""Which workers are alive, and which models are warm or requested."""

import json
from collections.abc import Collection, Iterable, Mapping
from dataclasses import asdict, astuple, dataclass, field
from typing import Any

from redis import Redis

from worker.jobs.ledger.connection import RedisClient, in_ms
from worker.jobs.ledger.functions import OFFSET, Library
from worker.jobs.record import ModelRef

# A worker without a heartbeat for this long counts as dead.
WORKER_SILENT_S = 15
# Workers by the time of their last heartbeat, and the slots of each.
_WORKERS, _SLOTS = "piqueue:workers", "piqueue:slots"
# Those that cannot decode HEIC pictures.
_WITHOUT_HEIC = "piqueue:workers:without_heic"
_LUA = """
offer('heartbeat', function()
  for _, gone in ipairs(redis.call('ZRANGE', KEYS[1], '-inf', now_ms() - ARGV[3], 'BYSCORE')) do
    redis.call('ZREM', KEYS[1], gone)
    redis.call('HDEL', KEYS[2], gone)
    redis.call('SREM', KEYS[3], gone)
  end
  redis.call('ZADD', KEYS[1], now_ms(), ARGV[1])
  redis.call('HSET', KEYS[2], ARGV[1], ARGV[2])
  redis.call(ARGV[4] == '1' and 'SREM' or 'SADD', KEYS[3], ARGV[1])
end)
"""
# A request for a model expires this long after the last chunk that needed it.
WANTED_S = 120
_WANTED = "piqueue:models:wanted"


class Workers(RedisClient):
    """The heartbeats of workers in Redis; every method raises LedgerUnavailable."""

    def __init__(self, redis: Redis) -> None:
        super().__init__(redis)
        self._library = Library(redis, "workers", _LUA)

    def heartbeat(self, worker_id: str, slots: int, *, reads_heic: bool = True) -> None:
        """Record that a worker is alive and runs `slots` chunks at a time; forget dead ones."""
        args = (worker_id, slots, WORKER_SILENT_S * 1000, int(reads_heic))
        self._library.call("heartbeat", args, [_WORKERS, _SLOTS, _WITHOUT_HEIC])

    def forget(self, worker_id: str) -> None:
        """Record that a worker has stopped."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.zrem(_WORKERS, worker_id)
            pipe.hdel(_SLOTS, worker_id)
            pipe.srem(_WITHOUT_HEIC, worker_id)
            pipe.execute()

    def live(self) -> dict[str, int]:
        """The slots of each live worker, by its id."""
        with self._redis.pipeline(transaction=True) as pipe:
            pipe.time()
            pipe.hget(*OFFSET)
            pipe.zrange(_WORKERS, 0, -1, withscores=True)
            pipe.hgetall(_SLOTS)
            now, offset, heartbeats, slots = pipe.execute()
        silent_ms = in_ms(now) + int(offset or 0) - WORKER_SILENT_S * 1000
        return {
            worker.decode(): int(slots[worker]) for worker, at_ms in heartbeats if at_ms > silent_ms
        }

    def reads_heic(self) -> bool:
        """Whether every live worker can decode HEIC; True if there is none."""
        without = {worker.decode() for worker in self._redis.smembers(_WITHOUT_HEIC)}
        return without.isdisjoint(self.live())


@dataclass(frozen=True)
class RunningVariant:
    """The variant of a model that a worker runs, and its CPU milliseconds a picture if measured."""

    variant: str
    picture_ms: float | None


@dataclass(frozen=True)
class WorkerModels:
    """The models of one worker, by their keys."""

    warm: Mapping[str, RunningVariant] = field(default_factory=dict)
    unable: frozenset[str] = frozenset()


class ModelPresence(RedisClient):
    """Models in Redis, for as long as heartbeats; every method raises LedgerUnavailable."""

    def report(
        self, worker_id: str, warm: Mapping[str, RunningVariant], unable: Iterable[str]
    ) -> None:
        """Record the models of a worker: warm ones, and those that it cannot load."""
        running = {key: astuple(variant) for key, variant in warm.items()}
        told = json.dumps([running, sorted(unable)])
        self._redis.set(_models_key(worker_id), told, ex=WORKER_SILENT_S)

    def of(self, worker_ids: Collection[str]) -> list[WorkerModels]:
        """The last report of each of these workers."""
        if not worker_ids:
            return []
        told = self._redis.mget([_models_key(worker_id) for worker_id in worker_ids])
        return [_models_of(*json.loads(one or "[{}, []]")) for one in told]

    def forget(self, worker_id: str) -> None:
        """Record that a worker has stopped."""
        self._redis.delete(_models_key(worker_id))

    def request(self, model: ModelRef) -> float:
        """Record that a chunk waits for a model; returns how many seconds the first has waited."""
        key = _wanted_key(model.key)
        with self._redis.pipeline(transaction=False) as pipe:
            pipe.time()
            (now_s, _), *_ = pipe.execute()
            pipe.set(key, json.dumps([asdict(model), now_s]), nx=True)
            pipe.expire(key, WANTED_S)
            pipe.sadd(_WANTED, model.key)
            pipe.get(key)
            *_, found = pipe.execute()
        return float(now_s - json.loads(found)[1])

    def wanted(self) -> list[ModelRef]:
        """List the models that chunks wait for; every worker tries to load them."""
        keys = [key.decode() for key in self._redis.smembers(_WANTED)]
        if not keys:
            return []
        found = self._redis.mget([_wanted_key(key) for key in keys])
        if gone := [key for key, one in zip(keys, found, strict=True) if not one]:
            self._redis.srem(_WANTED, *gone)
        return [ModelRef(**json.loads(one)[0]) for one in found if one]

    def fulfil(self, model: ModelRef) -> None:
        """Record that a worker has loaded a requested model."""
        self._redis.delete(_wanted_key(model.key))


def _models_of(warm: dict[str, list[Any]] | list[str], unable: list[str]) -> WorkerModels:
    if isinstance(warm, list):  # reported by a worker of an earlier version
        warm = {key: ["float", None] for key in warm}
    running = {key: RunningVariant(*variant) for key, variant in warm.items()}
    return WorkerModels(running, frozenset(unable))


def _models_key(worker_id: str) -> str:
    return f"piqueue:models:{worker_id}"


def _wanted_key(key: str) -> str:
    return f"{_WANTED}:{key}"
