"""The models a worker process holds: warm, several at once, the idlest make room for another."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import structlog

from model.predictor import Predictor
from worker.jobs.record import ModelRef

# A model that could not be loaded is tried again after this time.
AGAIN_S = 5.0
# Models that are loaded side by side.
LOADERS = 2
# A model that was used within this time is not put away for one that may be used soon.
IDLE_S = 60.0

log = structlog.get_logger()


class CannotLoad(Exception):
    """This worker cannot load a model; the text says why."""


@dataclass
class _Place:
    """Room taken by a model; its predictor comes once it is warm."""

    model: ModelRef
    memory_bytes: int
    predictor: Future[Predictor]
    users: int = 0
    used: float = 0


@dataclass(frozen=True)
class _Refusal:
    reason: str
    at: float


class ModelPool:
    """Warm predictors that take up to `total_bytes` together; what is in use is never put away.

    `load` gives a warm predictor, and `memory_of` the bytes it will take. Both raise CannotLoad.
    """

    def __init__(
        self,
        load: Callable[[ModelRef], Predictor],
        memory_of: Callable[[ModelRef], int],
        total_bytes: int,
    ) -> None:
        self._load = load
        self._memory_of = memory_of
        self._total_bytes = total_bytes
        self._loaders = ThreadPoolExecutor(LOADERS, "loader")
        # Whoever waits for room holds the door, so that those after them do not pass for ever.
        self._door = threading.Lock()
        self._changed = threading.Condition()
        self._places: dict[str, _Place] = {}
        self._refusals: dict[str, _Refusal] = {}

    @property
    def warm(self) -> list[ModelRef]:
        """The models that can be used at once."""
        with self._changed:
            places = list(self._places.values())
        return [place.model for place in places if _is_warm(place)]

    @property
    def unable(self) -> list[str]:
        """The keys of the models that could not be loaded when last tried."""
        with self._changed:
            return list(self._refusals)

    @contextmanager
    def using(self, model: ModelRef) -> Iterator[Predictor]:
        """Give the warm predictor of a model, after loading it if need be.

        Others go on while it is loaded, and wait only while it waits for room.

        Raises:
            CannotLoad: it could not be loaded, now or a moment ago, or takes more than there is.
        """
        place = self._enter(model, self._memory_bytes(model))
        try:
            yield place.predictor.result()
        finally:
            with self._changed:
                place.users -= 1
                place.used = time.monotonic()
                self._changed.notify_all()

    def prepare(self, model: ModelRef) -> None:
        """Load a model that is likely to be used soon, if there is idle room.

        Raises:
            CannotLoad: as `using`.
        """
        memory_bytes = self._memory_bytes(model)
        with self._changed:
            held = model.key in self._places
            idle_since = time.monotonic() - IDLE_S
            busy = [one for one in self._places.values() if one.users or one.used >= idle_since]
            room = _sum_bytes(busy) + memory_bytes <= self._total_bytes
        if room and not held:
            with self.using(model):
                pass

    def _memory_bytes(self, model: ModelRef) -> int:
        """Give what a model takes; asked outside the locks, for the answer may come from afar."""
        with self._changed:
            place = self._places.get(model.key)
        if place:
            return place.memory_bytes
        try:
            memory_bytes = self._memory_of(model)
            if memory_bytes > self._total_bytes:
                raise CannotLoad(
                    f"{model.name}@{model.version} takes {memory_bytes} bytes, and all models "
                    f"together may take {self._total_bytes}: raise PIQUEUE_MODELS_MEMORY_BYTES, "
                    "or lower PIQUEUE_THREADS"
                )
        except CannotLoad as error:
            with self._changed:
                self._refuse(model, str(error))
            raise
        return memory_bytes

    def _enter(self, model: ModelRef, memory_bytes: int) -> _Place:
        with self._door, self._changed:
            place = self._places.get(model.key)
            if place is None:
                refusal = self._refusals.get(model.key)
                if refusal and time.monotonic() - refusal.at < AGAIN_S:
                    raise CannotLoad(refusal.reason)
                self._make_room(memory_bytes)
                place = _Place(model, memory_bytes, self._loaders.submit(self._load, model))
                self._places[model.key] = place
                place.predictor.add_done_callback(partial(self._loaded, model))
            place.users += 1
            return place

    def _make_room(self, memory_bytes: int) -> None:
        while _sum_bytes(self._places.values()) + memory_bytes > self._total_bytes:
            idle = [place for place in self._places.values() if not place.users]
            if idle:
                longest = min(idle, key=lambda place: place.used)
                del self._places[longest.model.key]
                log.info("model_put_away", model=longest.model.name, version=longest.model.version)
            else:
                self._changed.wait()

    def _loaded(self, model: ModelRef, predictor: Future[Predictor]) -> None:
        error = predictor.exception()
        with self._changed:
            if error is None:
                self._refusals.pop(model.key, None)
                log.info("model_warm", model=model.name, version=model.version)
                return
            place = self._places.get(model.key)
            if place and place.predictor is predictor:
                del self._places[model.key]
            self._changed.notify_all()
            if isinstance(error, CannotLoad):
                self._refuse(model, str(error))

    def _refuse(self, model: ModelRef, reason: str) -> None:
        before = self._refusals.get(model.key)
        if before is None or before.reason != reason:
            log.error("model_unusable", model=model.name, version=model.version, reason=reason)
        self._refusals[model.key] = _Refusal(reason, time.monotonic())


def _is_warm(place: _Place) -> bool:
    return place.predictor.done() and place.predictor.exception() is None


def _sum_bytes(places: Iterable[_Place]) -> int:
    return sum(place.memory_bytes for place in places)
