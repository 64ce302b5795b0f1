"""Keeps the models of a worker up to date: what is promoted is warm before the first job asks."""

import threading

import structlog

from worker.jobs.errors import (
    LedgerUnavailable,
    ModelNotFound,
    ModelUnavailable,
    StorageUnavailable,
)
from worker.jobs.record import ModelRef
from worker.scoring.model_pool import CannotLoad
from worker.scoring.runtime import Runtime

LOOK_S = 2.0

log = structlog.get_logger()


class ModelRefresher:
    """A thread that looks at the registry and tells what this worker has, until stopped."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="models", daemon=True)

    def start(self) -> None:
        """Tell at once what is warm, then keep it up to date in the thread."""
        self._tell()
        self._thread.start()

    def stop(self) -> None:
        """Stop, after what is being loaded."""
        self._stopping.set()
        self._thread.join(LOOK_S)
        try:
            self._runtime.presence.forget(self._runtime.worker_id)
        except LedgerUnavailable as error:
            log.warning("sign_off_missed", reason=str(error))

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            try:
                for model in self._runtime.presence.wanted():
                    if self._prepare(model):
                        self._runtime.presence.fulfil(model)
                for model in self._current():
                    self._prepare(model)
            except (LedgerUnavailable, StorageUnavailable, ModelUnavailable) as error:
                log.warning("models_not_looked_at", reason=str(error))
            self._tell()

    def _current(self) -> list[ModelRef]:
        """List the versions that jobs get who name none: of the default, and of what is held."""
        names = {None, *(model.name for model in self._runtime.models.warm)}
        current = []
        for name in names:
            try:
                current.append(self._runtime.catalog.resolve(name).ref)
            except ModelNotFound as error:
                log.warning("model_gone", reason=str(error))
        return current

    def _prepare(self, model: ModelRef) -> bool:
        try:
            self._runtime.models.prepare(model)
        except CannotLoad:  # said where it was tried
            return False
        return model in self._runtime.models.warm

    def _tell(self) -> None:
        runtime = self._runtime
        warm = [model.key for model in runtime.models.warm]
        try:
            runtime.presence.report(runtime.worker_id, warm, runtime.models.unable)
        except LedgerUnavailable as error:
            log.warning("models_not_told", reason=str(error))
