"""Pictures of concurrent calls share batches, and each call gets its own scores or error."""

import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pytest
from numpy.typing import NDArray

from model.engines.prediction import Prediction
from model.predictor import Predictor
from tests.worker.jobs.ledger.test_store import MODEL
from tests.worker.scoring.test_classify import BrightnessPredictor, BrokenAt
from worker.scoring.batching import BatchingPredictor
from worker.scoring.metrics import WorkerMetrics

LONG_S = 30


def batching(engine: Predictor, batch_size: int, wait_s: float) -> BatchingPredictor:
    return BatchingPredictor(engine, MODEL.ref, WorkerMetrics(), batch_size, wait_s)


def grey(*values: int) -> list[NDArray[np.uint8]]:
    return [np.full((8, 8, 3), value, np.uint8) for value in values]


def scores(predictions: Sequence[Prediction]) -> list[int]:
    return [round(prediction.scores[0] * 255) for prediction in predictions]


class Gated(BrightnessPredictor):
    """Waits in each batch until `go` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """See `Predictor.predict`."""
        predictions = super().predict(images)
        assert self.go.wait(LONG_S)
        return predictions


def wait_until_waiting(predictor: BatchingPredictor, count: int) -> None:
    until = time.monotonic() + LONG_S
    while sum(len(one.images) for one in predictor._waiting) != count:
        assert time.monotonic() < until
        time.sleep(0.001)


def test_concurrent_calls_share_a_batch_as_soon_as_it_is_full() -> None:
    engine = BrightnessPredictor()
    predictor = batching(engine, 8, LONG_S)
    with ThreadPoolExecutor(8) as callers:
        answers = list(callers.map(lambda value: predictor.predict(grey(value)), range(8)))
    assert [scores(answer) for answer in answers] == [[value] for value in range(8)]
    assert engine.sizes == [8]


def test_a_batch_that_is_not_full_runs_after_the_wait() -> None:
    engine = BrightnessPredictor()
    predictor = batching(engine, 8, 0.05)
    started = time.monotonic()
    assert scores(predictor.predict(grey(1, 2))) == [1, 2]
    assert time.monotonic() - started >= 0.05
    assert predictor.predict([]) == []
    assert engine.sizes == [2]


def test_calls_that_come_while_a_batch_runs_share_the_next_and_are_not_divided() -> None:
    engine = Gated()
    predictor = batching(engine, 4, 0)
    with ThreadPoolExecutor(4) as callers:
        answers: list[Future[list[Prediction]]] = [callers.submit(predictor.predict, grey(1))]
        while not engine.sizes:
            time.sleep(0.001)
        for count, values in enumerate(((2, 3), (4,), (5, 6)), 1):
            answers.append(callers.submit(predictor.predict, grey(*values)))
            wait_until_waiting(predictor, (2, 3, 5)[count - 1])
        engine.go.set()
    assert [scores(answer.result()) for answer in answers] == [[1], [2, 3], [4], [5, 6]]
    assert engine.sizes == [1, 3, 2]


def test_only_the_call_whose_picture_breaks_the_engine_fails() -> None:
    predictor = batching(BrokenAt(7), 6, LONG_S)
    with ThreadPoolExecutor(3) as callers:
        answers = [
            callers.submit(predictor.predict, grey(*values)) for values in ((1, 2), (3, 7), (4, 5))
        ]
    assert scores(answers[0].result()) == [1, 2]
    assert scores(answers[2].result()) == [4, 5]
    with pytest.raises(RuntimeError):
        answers[1].result()
    assert scores(batching(BrokenAt(7), 6, 0).predict(grey(8))) == [8]
