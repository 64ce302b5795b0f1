"""The models a worker process holds: loaded warm, several at once, the idlest makes room."""

import threading
import time
from collections.abc import Callable, Iterator
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
    predictor: Future[Predictor]
    users: int = 0
    used: float = 0


@dataclass(frozen=True)
class _Refusal:
    reason: str
    at: float


class HeldModels:
    """Up to `most` warm predictors; what is in use is never put away.

    `load` gives a warm predictor, and raises CannotLoad.
    """

    def __init__(self, load: Callable[[ModelRef], Predictor], most: int) -> None:
        self._load = load
        self._most = most
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
            CannotLoad: it could not be loaded, now or a moment ago.
        """
        place = self._enter(model)
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
        with self._changed:
            idle_since = time.monotonic() - IDLE_S
            idle = any(not one.users and one.used < idle_since for one in self._places.values())
            room = len(self._places) < self._most or idle
        if room and model.key not in self._places:
            with self.using(model):
                pass

    def _enter(self, model: ModelRef) -> _Place:
        with self._door, self._changed:
            place = self._places.get(model.key)
            if place is None:
                refusal = self._refusals.get(model.key)
                if refusal and time.monotonic() - refusal.at < AGAIN_S:
                    raise CannotLoad(refusal.reason)
                self._make_room()
                place = _Place(model, self._loaders.submit(self._load, model))
                self._places[model.key] = place
                place.predictor.add_done_callback(partial(self._loaded, model))
            place.users += 1
            return place

    def _make_room(self) -> None:
        while len(self._places) >= self._most:
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
