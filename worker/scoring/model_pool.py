"""Keeps several models warm in a worker process, and evicts the least recently used ones."""

import math
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
RETRY_S = 5.0
# Models that are loaded at the same time.
LOADERS = 2
# A model that was used within this time is not evicted for one that may be used soon.
IDLE_S = 60.0

log = structlog.get_logger()


class CannotLoad(Exception):
    """This worker cannot load a model; the text says why."""


@dataclass
class _Entry:
    """A model with its memory; its predictor is ready once the model is warm."""

    model: ModelRef
    memory_bytes: int
    predictor: Future[Predictor]
    users: int = 0
    used_at: float = 0


class ModelPool:
    """Warm predictors that take up to `total_bytes` together; one in use is never evicted.

    `load` gives a warm predictor, and `memory_of` the bytes that it will take. Both may raise
    CannotLoad.
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
        # A caller that waits for memory holds this lock, so that later callers do not overtake it.
        self._acquiring = threading.Lock()
        self._changed = threading.Condition()
        self._entries: dict[str, _Entry] = {}
        # The reason why a model could not be loaded, and when.
        self._failures: dict[str, tuple[str, float]] = {}

    @property
    def warm(self) -> dict[ModelRef, Predictor]:
        """The models that can be used at once."""
        with self._changed:
            entries = list(self._entries.values())
        return {
            entry.model: entry.predictor.result()
            for entry in entries
            if entry.predictor.done() and not entry.predictor.exception()
        }

    @property
    def unable(self) -> list[str]:
        """The keys of the models that could not be loaded when last tried."""
        with self._changed:
            return list(self._failures)

    @contextmanager
    def using(self, model: ModelRef) -> Iterator[Predictor]:
        """Give the warm predictor of a model, and load it first if necessary.

        Loading blocks no other model; only waiting for memory does.

        Raises:
            CannotLoad: it could not be loaded, now or a moment ago, or takes too much memory.
        """
        entry = self._acquire(model, self._memory_bytes(model))
        try:
            yield entry.predictor.result()
        finally:
            with self._changed:
                entry.users -= 1
                entry.used_at = time.monotonic()
                self._changed.notify_all()

    def prepare(self, model: ModelRef) -> None:
        """Load a model that may be used soon, if idle models leave enough memory.

        Raises:
            CannotLoad: as `using`.
        """
        memory_bytes = self._memory_bytes(model)
        with self._changed:
            present = model.key in self._entries
            idle_since = time.monotonic() - IDLE_S
            busy = [one for one in self._entries.values() if one.users or one.used_at >= idle_since]
            fits = _sum_bytes(busy) + memory_bytes <= self._total_bytes
        if fits and not present:
            with self.using(model):
                pass

    def _memory_bytes(self, model: ModelRef) -> int:
        """Give the memory of a model; called without the locks, as the catalog may be remote."""
        with self._changed:
            entry = self._entries.get(model.key)
        if entry:
            return entry.memory_bytes
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
                self._record_failure(model, str(error))
            raise
        return memory_bytes

    def _acquire(self, model: ModelRef, memory_bytes: int) -> _Entry:
        with self._acquiring, self._changed:
            entry = self._entries.get(model.key)
            if entry is None:
                reason, failed_at = self._failures.get(model.key, ("", -math.inf))
                if time.monotonic() - failed_at < RETRY_S:
                    raise CannotLoad(reason)
                self._free_memory(memory_bytes)
                entry = _Entry(model, memory_bytes, self._loaders.submit(self._load, model))
                self._entries[model.key] = entry
                entry.predictor.add_done_callback(partial(self._loaded, model))
            entry.users += 1
            return entry

    def _free_memory(self, memory_bytes: int) -> None:
        while _sum_bytes(self._entries.values()) + memory_bytes > self._total_bytes:
            idle = [entry for entry in self._entries.values() if not entry.users]
            if idle:
                oldest = min(idle, key=lambda entry: entry.used_at).model
                del self._entries[oldest.key]
                log.info("model_evicted", model=oldest.name, version=oldest.version)
            else:
                self._changed.wait()

    def _loaded(self, model: ModelRef, predictor: Future[Predictor]) -> None:
        error = predictor.exception()
        with self._changed:
            if error is None:
                self._failures.pop(model.key, None)
                log.info("model_warm", model=model.name, version=model.version)
                return
            entry = self._entries.get(model.key)
            if entry and entry.predictor is predictor:
                del self._entries[model.key]
            self._changed.notify_all()
            if isinstance(error, CannotLoad):
                self._record_failure(model, str(error))

    def _record_failure(self, model: ModelRef, reason: str) -> None:
        if reason not in self._failures.get(model.key, ()):
            log.error("model_unusable", model=model.name, version=model.version, reason=reason)
        self._failures[model.key] = (reason, time.monotonic())


def _sum_bytes(entries: Iterable[_Entry]) -> int:
    return sum(entry.memory_bytes for entry in entries)
