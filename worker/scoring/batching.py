"""Dynamic batching: pictures of all chunks and jobs that wait at the same time share a batch."""

import threading
import time
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model.engines.prediction import Prediction
from model.predictor import Predictor
from worker.jobs.record import ModelRef
from worker.scoring.metrics import TimedPredictor, WorkerMetrics

Images = Sequence[NDArray[np.uint8]]


class _Request:
    """The pictures of one call, and their predictions or the error once they are known."""

    def __init__(self, images: Images) -> None:
        self.images = images
        self.since = time.monotonic()
        self.outcome: list[Prediction] | Exception | None = None


class BatchingPredictor(TimedPredictor):
    """Runs an engine with the pictures of concurrent calls, one batch at a time.

    A batch begins once `batch_size` pictures wait, or when the first of them has waited `wait_s`.
    Pictures that arrive while a batch runs wait for the next one. A call is never divided, so a
    batch is smaller if the next call does not fit into it.
    """

    def __init__(
        self,
        predictor: Predictor,
        model: ModelRef,
        metrics: WorkerMetrics,
        batch_size: int,
        wait_s: float,
    ) -> None:
        super().__init__(predictor, model, metrics)
        self._batch_size, self._wait_s = batch_size, wait_s
        # Guards what follows. The thread of one of the waiting calls runs the batch.
        self._changed = threading.Condition()
        self._waiting: deque[_Request] = deque()
        self._running = False

    def predict(self, images: Images) -> list[Prediction]:
        """See `Predictor.predict`."""
        if not images:
            return []
        request = _Request(images)
        with self._changed:
            self._waiting.append(request)
            self._changed.notify_all()
            while request.outcome is None:
                if self._running:
                    self._changed.wait()
                else:
                    self._run_next()
        if isinstance(request.outcome, Exception):
            raise request.outcome
        return request.outcome

    def _run_next(self) -> None:
        """Run the next batch; called with the lock, which is released while the batch runs."""
        self._running = True
        try:
            requests = self._next_batch()
            self._changed.release()
            try:
                self._run(requests)
            finally:
                self._changed.acquire()
        finally:
            self._running = False
            self._changed.notify_all()

    def _next_batch(self) -> list[_Request]:
        until = self._waiting[0].since + self._wait_s
        while sum(len(one.images) for one in self._waiting) < self._batch_size:
            left_s = until - time.monotonic()
            if left_s <= 0:
                break
            self._changed.wait(left_s)
        requests, room = [self._waiting.popleft()], self._batch_size
        room -= len(requests[0].images)
        while self._waiting and len(self._waiting[0].images) <= room:
            requests.append(self._waiting.popleft())
            room -= len(requests[-1].images)
        return requests

    def _run(self, requests: Sequence[_Request]) -> None:
        """Set the outcome of each request; if the batch fails, each is run alone."""
        try:
            predictions = iter(super().predict([image for one in requests for image in one.images]))
        except Exception as error:  # noqa: BLE001 - each call raises its own
            if len(requests) == 1:
                requests[0].outcome = error
            else:
                for request in requests:
                    self._run([request])
            return
        for request in requests:
            request.outcome = [next(predictions) for _ in request.images]
