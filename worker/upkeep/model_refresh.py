"""Loads promoted models before the first job asks for them, and reports what is loaded."""

import structlog

from worker.jobs.errors import (
    JobRefused,
    LedgerUnavailable,
    ModelNotFound,
    ModelUnavailable,
    StorageUnavailable,
)
from worker.jobs.ledger.workers import RunningVariant
from worker.jobs.record import ModelRef
from worker.scoring.model_pool import CannotLoad
from worker.scoring.runtime import Runtime
from worker.upkeep.periodic import PeriodicThread

POLL_S = 2.0

log = structlog.get_logger()


class ModelRefresher(PeriodicThread):
    """Follows the model catalog and reports the models of this worker, until stopped."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__("models", POLL_S, self._refresh, stop_s=POLL_S)
        self._runtime = runtime
        # Models that are gone, None for the default one: they are logged once.
        self._gone: set[str | None] = set()

    def start(self) -> None:
        """Report at once which models are warm, then start the thread."""
        self._report()
        super().start()

    def stop(self) -> None:
        """End the thread, and wait a moment for a model that is being loaded."""
        super().stop()
        try:
            self._runtime.presence.forget(self._runtime.worker_id)
        except LedgerUnavailable as error:
            log.warning("deregistration_failed", reason=str(error))

    def _refresh(self) -> None:
        try:
            for model in self._runtime.presence.wanted():
                if self._prepare(model):
                    self._runtime.presence.fulfil(model)
            for model in self._current():
                self._prepare(model)
        except (LedgerUnavailable, StorageUnavailable, ModelUnavailable) as error:
            log.warning("models_not_refreshed", reason=str(error))
        self._report()

    def _current(self) -> list[ModelRef]:
        """List the current versions of the default model and of the models that are warm."""
        names = {None, *(model.name for model in self._runtime.models.warm)}
        current = []
        for name in names:
            try:
                current.append(self._runtime.catalog.resolve(name).ref)
                self._gone.discard(name)
            except (ModelNotFound, JobRefused) as error:
                if name not in self._gone:
                    log.warning("model_gone", reason=str(error))
                self._gone.add(name)
        return current

    def _prepare(self, model: ModelRef) -> bool:
        try:
            self._runtime.models.prepare(model)
        except CannotLoad:  # the model pool has logged it
            return False
        return model in self._runtime.models.warm

    def _report(self) -> None:
        runtime = self._runtime
        warm = {
            model.key: RunningVariant(predictor.variant, predictor.picture_ms)
            for model, predictor in runtime.models.warm.items()
        }
        try:
            runtime.presence.report(runtime.worker_id, warm, runtime.models.unable)
        except LedgerUnavailable as error:
            log.warning("models_not_reported", reason=str(error))
