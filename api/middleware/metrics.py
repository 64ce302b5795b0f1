"""GET /metrics: the HTTP requests of this process, and the current state of the ledger."""

import time
from collections.abc import Iterator, Sequence

import prometheus_client
import structlog
from fastapi import APIRouter, FastAPI, Request, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.auth import SCRAPE_SLOT, ScraperDep
from api.services import Services
from worker.jobs.drift import ModelScores, current_scores
from worker.jobs.errors import StorageUnavailable
from worker.jobs.ledger.score_days import today
from worker.jobs.models.artifact import SCORE_BINS

# A path or method that a caller invents must not become a series of its own.
NO_ROUTE = "none"
METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"))
OTHER_METHOD = "other"
BUCKETS_S = (0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60)

router = APIRouter(tags=["service"])

log = structlog.get_logger()


class LedgerCollector(Collector):
    """The gauges of the ledger, read for each scrape; all API processes return the same values."""

    def __init__(self, services: Services) -> None:
        self._services = services

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read the gauges. Raises LedgerUnavailable."""
        services = self._services
        items, workers = services.load.open_items(), services.workers.live()
        for name, text, value in (
            ("piqueue_items_waiting", "Items that no worker has claimed yet", items.waiting),
            ("piqueue_items_running", "Items that a worker has claimed", items.running),
            ("piqueue_backlog_items", "Items without a result", items.waiting + items.running),
            ("piqueue_jobs_open", "Jobs that have unfinished items", items.job_count),
            ("piqueue_workers", "Worker processes with a recent heartbeat", len(workers)),
            (
                "piqueue_worker_slots",
                "Chunks that all workers can score at the same time",
                sum(workers.values()),
            ),
        ):
            yield GaugeMetricFamily(name, text, value)
        oldest = GaugeMetricFamily(
            "piqueue_oldest_waiting_item_age_seconds",
            "Time since the submission of the oldest waiting item",
            labels=["lane"],
        )
        for lane, age_s in items.oldest_waiting_s.items():
            oldest.add_metric([lane], age_s)
        yield oldest
        try:
            models = list(current_scores(services.catalog, services.score_days))
        except StorageUnavailable as error:  # of the registry, which the other gauges do not need
            log.warning("score_metrics_missing", reason=str(error))
            models = []
        yield from _scores(models)


def _scores(models: Sequence[ModelScores]) -> Iterator[GaugeMetricFamily]:
    """The scores of today by bin, and their drift; at most 11 series for each of 20 labels."""
    counts = GaugeMetricFamily(
        "piqueue_scores_today",
        "Scores of today, in UTC, from `at_least` to less than `at_least` + 0.1",
        labels=["model", "label", "at_least"],
    )
    drift = GaugeMetricFamily(
        "piqueue_score_drift",
        "Population stability index of the scores of a day against those of the validation set",
        labels=["model", "label"],
    )
    for one in models:
        for label, bins in one.by_day.get(today(), {}).items():
            for index, count in enumerate(bins):
                counts.add_metric([one.model.text, label, f"{index / SCORE_BINS}"], count)
        for label, value in one.drift.items():
            drift.add_metric([one.model.text, label], value)
    yield from (counts, drift)


class HttpMetrics:
    """ASGI middleware that counts requests and measures the time until the response begins."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry) -> None:
        self._app = app
        self._requests = Counter(
            "piqueue_http_requests",
            "HTTP requests, by route",
            ("route", "method", "status"),
            registry=registry,
        )
        self._seconds = Histogram(
            "piqueue_http_request_seconds",
            "Time from a request to the beginning of its response",
            ("route", "method"),
            buckets=BUCKETS_S,
            registry=registry,
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle the request and count it; one that raises counts as 500, its later response."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, counted = time.monotonic(), False

        def count(status: int) -> None:
            nonlocal counted
            counted = True
            # The router stores the matching route in the scope.
            route = getattr(scope.get("route"), "path", NO_ROUTE)
            method = scope["method"] if scope["method"] in METHODS else OTHER_METHOD
            self._requests.labels(route, method, status).inc()
            self._seconds.labels(route, method).observe(time.monotonic() - started)

        async def send_counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                count(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, send_counted)
        except Exception:
            if not counted:
                count(500)
            raise


def install(app: FastAPI, services: Services) -> None:
    """Make `app` count its requests and serve its metrics."""
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    registry.register(LedgerCollector(services))
    app.state.metrics = registry
    app.add_middleware(HttpMetrics, registry=registry)


@router.get("/metrics", include_in_schema=False, dependencies=[SCRAPE_SLOT])
def read_metrics(request: Request, _caller: ScraperDep) -> Response:
    """Return the metrics; once API keys exist, they need one with the scope `metrics`."""
    body = prometheus_client.generate_latest(request.app.state.metrics)
    return Response(body, media_type=CONTENT_TYPE_PLAIN_0_0_4)
