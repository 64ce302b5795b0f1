"""GET /metrics on a real Redis: the ledger's gauges, and requests by their route."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx2
import pytest
from prometheus_client import generate_latest
from redis import Redis

from api.main import create_app
from tests.scrape import Sample, read_scrape
from tests.worker.jobs.ledger.test_store import claim, scored, submit
from tests.worker.registry import add_version
from worker.jobs.ledger.api_keys import KeyStore, Scope
from worker.jobs.ledger.score_days import ScoreDays
from worker.jobs.ledger.store import JobStore
from worker.jobs.ledger.workers import Workers
from worker.jobs.models.configured import open_catalog
from worker.jobs.settings import load_settings
from worker.scoring.metrics import WorkerMetrics

DOCUMENT = Path(__file__).parents[3] / "docs" / "metrics.md"


@asynccontextmanager
async def service(redis_url: str) -> AsyncIterator[httpx2.AsyncClient]:
    """Run the API in this process, with a route that has a bug."""
    app = create_app(load_settings(redis_url=redis_url))

    @app.get("/bug/{number}")
    def bug(number: int) -> float:
        return 1 / (number - number)

    transport = httpx2.ASGITransport(app, raise_app_exceptions=False)
    async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
        yield client


def scrape_after(redis_url: str, *requests: tuple[str, str]) -> tuple[Sample, str]:
    async def run() -> str:
        async with service(redis_url) as client:
            for method, path in requests:
                await client.request(method, path)
            answer = await client.get("/metrics")
            assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
            return answer.raise_for_status().text

    text = asyncio.run(run())
    return read_scrape(text), text


def test_the_gauges_are_those_of_the_ledger(redis_client: Redis, redis_url: str) -> None:
    store = JobStore(redis_client)
    first, _ = submit(store, total=25)
    submit(store, total=7)
    claim(store, first, 0)
    redis_client.zincrby("piqueue:waiting:bulk", -90_000, first)
    workers = Workers(redis_client)
    workers.heartbeat("one", 3)
    workers.heartbeat("two", 4)

    value, _ = scrape_after(redis_url)
    assert value("piqueue_items_running") == 10
    assert value("piqueue_items_waiting") == 22
    assert value("piqueue_backlog_items") == 32
    assert value("piqueue_jobs_open") == 2
    assert 90 <= value("piqueue_oldest_waiting_item_age_seconds", lane="bulk") < 150
    assert value("piqueue_oldest_waiting_item_age_seconds", lane="interactive") == 0
    assert value("piqueue_workers") == 2
    assert value("piqueue_worker_slots") == 7


def test_running_items_do_not_count_as_waiting(redis_client: Redis, redis_url: str) -> None:
    store = JobStore(redis_client)
    job_id, _ = submit(store, total=5)
    redis_client.zincrby("piqueue:waiting:bulk", -90_000, job_id)
    taken = claim(store, job_id, 0)
    value, _ = scrape_after(redis_url)
    assert value("piqueue_items_running") == 5
    assert value("piqueue_oldest_waiting_item_age_seconds", lane="bulk") == 0

    store.commit(taken, scored(taken))
    value, _ = scrape_after(redis_url)
    assert value("piqueue_backlog_items") == value("piqueue_items_running") == 0


def test_the_drift_of_scores_is_shown_by_label(
    redis_client: Redis, redis_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    labels = ("beach", "city", "sunset", "trees")
    low, high = (600, *[0] * 9), (*[0] * 9, 600)
    add_version(tmp_path, "7", score_counts=dict.fromkeys(labels, low))
    monkeypatch.setenv("PIQUEUE_REGISTRY_URL", str(tmp_path))
    model = open_catalog(load_settings()).resolve("places").ref
    ScoreDays(redis_client).add({model.key: dict.fromkeys(labels[1:], low) | {"beach": high}})
    value, _ = scrape_after(redis_url)
    assert value("piqueue_score_drift", model="places@7", label="beach") > 5
    assert value("piqueue_score_drift", model="places@7", label="city") == 0
    shown = {"model": "places@7", "label": "beach"}
    assert value("piqueue_scores_today", **shown, at_least="0.9") == 600
    assert value("piqueue_scores_today", **shown, at_least="0.8") == 0


def test_requests_are_counted_by_route_and_never_by_path(
    redis_client: Redis, redis_url: str
) -> None:
    value, text = scrape_after(
        redis_url,
        ("GET", "/healthz"),
        ("GET", "/healthz"),
        ("GET", "/jobs/job_secret1?wait=0"),
        ("GET", "/jobs/job_secret2"),
        ("PUT", "/jobs/job_secret3"),
        ("GET", "/nothing/secret4"),
        ("SECRET5", "/healthz"),
        ("GET", "/bug/7"),
    )
    name = "piqueue_http_requests_total"
    assert value(name, route="/healthz", method="GET", status="200") == 2
    assert value(name, route="/jobs/{job_id}", method="GET", status="404") == 2
    assert value(name, route="/jobs/{job_id}", method="PUT", status="405") == 1
    assert value(name, route="none", method="GET", status="404") == 1
    assert value(name, route="/healthz", method="other", status="405") == 1
    assert value(name, route="/bug/{number}", method="GET", status="500") == 1
    seconds = "piqueue_http_request_seconds"
    assert value(f"{seconds}_count", route="/jobs/{job_id}", method="GET") == 2
    assert value(f"{seconds}_bucket", route="/healthz", method="GET", le="60.0") == 2
    assert "secret" not in text.lower()


def test_the_document_names_every_metric_and_no_other(redis_client: Redis, redis_url: str) -> None:
    _, text = scrape_after(redis_url)
    worker = generate_latest(WorkerMetrics().registry).decode()
    ours = re.findall(r"^# TYPE (piqueue_\w+)", text + worker, re.MULTILINE)
    tables = re.findall(r"^\| (`.*?) \|", DOCUMENT.read_text(), re.MULTILINE)
    assert sorted(re.findall(r"`(\w+)`", " ".join(tables))) == sorted(ours)


def test_once_there_are_keys_a_scrape_needs_one(redis_client: Redis, redis_url: str) -> None:
    keys = KeyStore(redis_client)
    added = [keys.add("alice"), keys.add("prometheus", scopes=[Scope.METRICS])]

    async def run() -> list[int]:
        async with service(redis_url) as client:
            tried = [{}, *({"Authorization": f"Bearer {key}"} for key in added)]
            return [(await client.get("/metrics", headers=each)).status_code for each in tried]

    assert asyncio.run(run()) == [401, 403, 200]
