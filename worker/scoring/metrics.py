"""What a worker process counts and times of its work, for Prometheus."""

from collections import Counter
from collections.abc import Sequence
from wsgiref.simple_server import WSGIServer

import numpy as np
import prometheus_client
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, ProcessCollector

from model.artifact.card import Card
from model.engines.prediction import Prediction
from model.predictor import Predictor
from worker.jobs.errors import SettingsInvalid
from worker.jobs.items import ItemResult, Stage
from worker.jobs.ledger.claims import Claim
from worker.jobs.record import ModelRef
from worker.jobs.settings import Settings
from worker.jobs.traces import span
from worker.jobs.webhooks.outbox import HookState

SUCCEEDED = "succeeded"
MS = 1000
QUEUE_BUCKETS_S = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3000, 10_000)
FETCH_BUCKETS_S = (0.01, 0.03, 0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60)
DECODE_BUCKETS_S = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5)
INFERENCE_BUCKETS_S = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
CHUNK_BUCKETS_S = (0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000)
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
# Attempts from this one on are counted as one, so that the series stay few.
MANY_ATTEMPTS = 3


class WorkerMetrics:
    """The metrics of one process; docs/metrics.md says what each means."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        ProcessCollector(registry=self.registry)
        self._items = self._counter(
            "piqueue_items", "Items that got a result, by its error code", "model", "outcome"
        )
        self._attempts = self._counter(
            "piqueue_chunk_attempts", "Chunks taken, by which attempt it was", "attempt"
        )
        self._webhooks = self._counter(
            "piqueue_webhook_attempts", "Webhook requests, by what they led to", "outcome"
        )
        self._queue_s = self._histogram(
            "piqueue_queue_seconds",
            "From ringing for a chunk to taking it",
            QUEUE_BUCKETS_S,
            "lane",
        )
        self._chunk_s = self._histogram(
            "piqueue_chunk_seconds", "From taking a chunk to its commit", CHUNK_BUCKETS_S
        )
        self._fetch_s = self._histogram(
            "piqueue_fetch_seconds", "Download of a picture, also a failed one", FETCH_BUCKETS_S
        )
        self._decode_s = self._histogram(
            "piqueue_decode_seconds", "Decoding of a picture", DECODE_BUCKETS_S
        )
        self.inference_s = self._histogram(
            "piqueue_inference_seconds", "Scoring of a batch", INFERENCE_BUCKETS_S, "model"
        )
        self.batch_items = self._histogram(
            "piqueue_batch_items", "Pictures in a batch", BATCH_BUCKETS, "model"
        )

    def _counter(self, name: str, text: str, *labels: str) -> prometheus_client.Counter:
        return prometheus_client.Counter(name, text, labels, registry=self.registry)

    def _histogram(
        self, name: str, text: str, buckets: Sequence[float], *labels: str
    ) -> prometheus_client.Histogram:
        return prometheus_client.Histogram(
            name, text, labels, buckets=buckets, registry=self.registry
        )

    def claimed(self, claim: Claim) -> None:
        """Count a chunk that was taken, and how long it had waited."""
        many = claim.attempt >= MANY_ATTEMPTS
        self._attempts.labels(f"{MANY_ATTEMPTS}+" if many else str(claim.attempt)).inc()
        if claim.waited_s is not None:
            self._queue_s.labels(claim.lane).observe(claim.waited_s)

    def committed(
        self, claim: Claim, model: ModelRef, results: Sequence[ItemResult], took_s: float
    ) -> None:
        """Count the results of a chunk and the time of their stages."""
        self._chunk_s.observe(took_s)
        outcomes = Counter(
            result.rejection.code if result.rejection else SUCCEEDED for result in results
        )
        for outcome, count in outcomes.items():
            self._items.labels(model_name(model), outcome).inc(count)
        for spec, result in zip(claim.specs, results, strict=True):
            if spec.url is not None and _was_fetched(result):
                self._fetch_s.observe(result.timings.fetch_ms / MS)
            if result.image and result.image.format and not result.cached:
                self._decode_s.observe(result.timings.decode_ms / MS)

    def webhook_attempted(self, state: HookState) -> None:
        """Count a webhook request by the state it led to."""
        self._webhooks.labels(state).inc()


class TimedPredictor:
    """A predictor whose batches are counted and timed."""

    def __init__(self, predictor: Predictor, model: ModelRef, metrics: WorkerMetrics) -> None:
        self._predictor, self._model = predictor, model_name(model)
        self._inference_s = metrics.inference_s.labels(self._model)
        self._batch_items = metrics.batch_items.labels(self._model)

    @property
    def card(self) -> Card:
        """The card of the model."""
        return self._predictor.card

    def warm_up(self) -> None:
        """Warm up, uncounted."""
        self._predictor.warm_up()

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """Score a batch; one that fails is timed too."""
        self._batch_items.observe(len(images))
        with span("inference", model=self._model, items=len(images)), self._inference_s.time():
            return self._predictor.predict(images)


def model_name(model: ModelRef) -> str:
    """Give the label of a model's series."""
    return f"{model.name}@{model.version}"


def _was_fetched(result: ItemResult) -> bool:
    failed = result.rejection is not None and result.rejection.stage is Stage.FETCH
    return failed or result.image is not None


def serve_metrics(metrics: WorkerMetrics, settings: Settings) -> WSGIServer | None:
    """Answer scrapes in a thread until `shutdown`; None where `metrics_port` is 0.

    Raises:
        SettingsInvalid: the port is taken, or the host is none of this machine's.
    """
    host, port = settings.metrics_host, settings.metrics_port
    if port == 0:
        return None
    try:
        server, _ = prometheus_client.start_http_server(port, host, metrics.registry)
    except OSError as error:
        raise SettingsInvalid(
            f"metrics cannot be served on {host}, port {port} ({error.strerror}): give each worker "
            "of a machine another PIQUEUE_METRICS_PORT, or 0 for none"
        ) from None
    return server
