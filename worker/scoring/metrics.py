"""The Prometheus metrics of a worker process."""

import collections
from collections.abc import Sequence
from functools import partial
from wsgiref.simple_server import WSGIServer

import numpy as np
import prometheus_client
from numpy.typing import NDArray
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from model.artifact.card import Card
from model.engines.joint import JointPredictor
from model.engines.network import NetworkPredictor
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
# Attempts from this one on share a series, to limit the number of series.
MANY_ATTEMPTS = 3


class WorkerMetrics:
    """The metrics of one process; docs/metrics.md says what each means."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        ProcessCollector(registry=self.registry)
        counter = partial(Counter, registry=self.registry)
        histogram = partial(Histogram, registry=self.registry)

        self._items = counter("piqueue_items", "Results by error code", ["model", "outcome"])
        self._attempts = counter("piqueue_chunk_attempts", "Claimed chunks by attempt", ["attempt"])
        self._webhooks = counter(
            "piqueue_webhook_attempts", "Webhook requests by resulting state", ["outcome"]
        )
        text = "Time that a job with waiting chunks waited for its next claim"
        self._queue_s = histogram("piqueue_queue_seconds", text, ["lane"], buckets=QUEUE_BUCKETS_S)
        text = "Time from the claim of a chunk to its commit"
        self._chunk_s = histogram("piqueue_chunk_seconds", text, buckets=CHUNK_BUCKETS_S)
        text = "Download of a picture, also a failed one"
        self._fetch_s = histogram("piqueue_fetch_seconds", text, buckets=FETCH_BUCKETS_S)
        text = "Decoding of a picture"
        self._decode_s = histogram("piqueue_decode_seconds", text, buckets=DECODE_BUCKETS_S)
        text = "Scoring of a batch"
        self.inference_s = histogram(
            "piqueue_inference_seconds", text, ["model"], buckets=INFERENCE_BUCKETS_S
        )
        text = "Pictures in a batch"
        self.batch_items = histogram("piqueue_batch_items", text, ["model"], buckets=BATCH_BUCKETS)
        text = (
            "CPU time per picture of the variant that this worker runs, measured when it was chosen"
        )
        labels = ["model", "variant"]
        self.variant_s = Gauge("piqueue_variant_seconds", text, labels, registry=self.registry)

    def claimed(self, claim: Claim) -> None:
        """Count a claimed chunk, and observe how long it waited."""
        many = claim.attempt >= MANY_ATTEMPTS
        self._attempts.labels(f"{MANY_ATTEMPTS}+" if many else str(claim.attempt)).inc()
        self._queue_s.labels(claim.lane).observe(claim.waited_s)

    def committed(
        self, claim: Claim, model: ModelRef, results: Sequence[ItemResult], took_s: float
    ) -> None:
        """Count the results of a chunk, and observe the time of their stages, then its own."""
        outcomes = collections.Counter(
            result.rejection.code if result.rejection else SUCCEEDED for result in results
        )
        for outcome, count in outcomes.items():
            self._items.labels(model_name(model), outcome).inc(count)
        for spec, result in zip(claim.specs, results, strict=True):
            if result.rescored:
                continue
            failed = result.rejection is not None and result.rejection.stage is Stage.FETCH
            if spec.url is not None and (failed or result.image):
                self._fetch_s.observe(result.timings.fetch_ms / MS)
            if result.image and result.image.format and not result.cached:
                self._decode_s.observe(result.timings.decode_ms / MS)
        # Last, so that a scrape that shows a chunk shows its items too.
        self._chunk_s.observe(took_s)

    def webhook_attempted(self, state: HookState) -> None:
        """Count a webhook request by the resulting state."""
        self._webhooks.labels(state).inc()


class TimedPredictor:
    """A predictor that counts and times its batches."""

    def __init__(self, predictor: Predictor, model: ModelRef, metrics: WorkerMetrics) -> None:
        self._predictor, self._model = predictor, model_name(model)
        self._inference_s = metrics.inference_s.labels(self._model)
        self._batch_items = metrics.batch_items.labels(self._model)
        if predictor.picture_ms is not None:
            metrics.variant_s.labels(self._model, predictor.variant).set(predictor.picture_ms / MS)

    @property
    def card(self) -> Card:
        """The card of the model."""
        return self._predictor.card

    @property
    def variant(self) -> str:
        """See `Predictor.variant`."""
        return self._predictor.variant

    @property
    def batched(self) -> bool:
        """See `Predictor.batched`."""
        return self._predictor.batched

    @property
    def picture_ms(self) -> float | None:
        """See `Predictor.picture_ms`."""
        return self._predictor.picture_ms

    def warm_up(self) -> None:
        """Warm up, without counting it."""
        self._predictor.warm_up()

    @property
    def of_features(self) -> NetworkPredictor | JointPredictor | None:
        """The predictor itself if it can score features, which is too fast to be measured."""
        predictor = self._predictor
        return predictor if isinstance(predictor, NetworkPredictor | JointPredictor) else None

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        """Score a batch; a failed one is timed too."""
        self._batch_items.observe(len(images))
        with span("inference", model=self._model, items=len(images)), self._inference_s.time():
            return self._predictor.predict(images)


def model_name(model: ModelRef) -> str:
    """Give a model as name@version, as in the labels of its metrics."""
    return model.text


def serve_metrics(metrics: WorkerMetrics, settings: Settings) -> WSGIServer | None:
    """Serve the metrics in a thread until `shutdown`; None if `metrics_port` is 0.

    Raises:
        SettingsInvalid: the port is in use, or the host is not an address of this machine.
    """
    host, port = settings.metrics_host, settings.metrics_port
    if port == 0:
        return None
    try:
        server, _ = prometheus_client.start_http_server(port, host, metrics.registry)
    except OSError as error:
        raise SettingsInvalid(
            f"metrics cannot be served on {host}, port {port} ({error.strerror}): give each worker "
            "on a machine another PIQUEUE_METRICS_PORT, or set it to 0 to serve none"
        ) from None
    return server
