"""The metrics of a worker: a real one is scraped after jobs with known results."""

import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import httpx2
import numpy as np
import pytest
from aiohttp import web
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from model.artifact.card import Card, VariantName
from model.engines.prediction import Prediction
from scripts.local.stack import Stack, listenable_port
from tests.api.polling import wait_done
from tests.conftest import STACK_ENV
from tests.pictures import jpeg
from tests.scrape import Sample, read_scrape
from tests.worker.fetching.site import Site
from tests.worker.jobs.ledger.test_store import MODEL, claim, recover_until_due, submit
from worker.jobs.errors import SettingsInvalid
from worker.jobs.ledger.store import JobStore
from worker.jobs.settings import load_settings
from worker.scoring.metrics import TimedPredictor, WorkerMetrics, serve_metrics

DEADLINE_S = 30
# A small job has up to four chunks: one of 5 items has three, one of 3 has three.
CHUNKS = 6


def scrape(port: int) -> Sample:
    answer = httpx2.get(f"http://127.0.0.1:{port}/metrics").raise_for_status()
    return read_scrape(answer.text)


def scores_of_today(client: httpx2.Client) -> dict[str, float]:
    """How many scores of each label of scenes the API reports."""
    families = text_string_to_metric_families(client.get("/metrics").raise_for_status().text)
    counts: Counter[str] = Counter()
    for sample in (one for family in families for one in family.samples):
        if sample.name == "piqueue_scores_today" and sample.labels["model"] == "scenes@5":
            counts[sample.labels["label"]] += int(sample.value)
    return dict(counts)


def test_a_scrape_shows_the_result_and_the_times_of_every_item(tmp_path: Path) -> None:
    async def picture(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(body=jpeg(1))

    async def hook(_request: web.BaseRequest) -> web.StreamResponse:
        return web.Response(status=204)

    answers = {"/1.jpg": picture, "/2.jpg": picture, "/hook": hook}
    port = listenable_port("127.0.0.1", 0)
    env = {**STACK_ENV, "PIQUEUE_METRICS_PORT": str(port), "PIQUEUE_CHUNK_ITEMS": "8"}
    with (
        Site(answers) as site,
        Stack(tmp_path, env=env) as stack,
        httpx2.Client(base_url=stack.url) as client,
    ):
        urls = [site.url(path) for path in ("/1.jpg", "/2.jpg", "/text", "/1.jpg")]
        urls.append("http://127.0.0.2/refused.jpg")
        submission = {"urls": urls, "webhook_url": site.url("/hook"), "use_cache": True}
        wait_done(client, client.post("/jobs", json=submission).json())
        files = [("files", (f"{seed}.jpg", jpeg(seed))) for seed in range(2, 5)]
        wait_done(client, client.post("/jobs", files=files).json())
        deadline = time.monotonic() + DEADLINE_S
        # A result can be read before it is counted.
        while (value := scrape(port))(
            "piqueue_webhook_attempts_total", outcome="delivered"
        ) < 1 or value("piqueue_chunk_seconds_count") < CHUNKS:
            assert time.monotonic() < deadline, "the webhook or the chunks were not counted"
        while len(days := scores_of_today(client)) < 4 or set(days.values()) != {6}:
            assert time.monotonic() < deadline, f"not all scores were counted: {days}"
            time.sleep(0.2)

    model = "scenes@5"
    assert value("piqueue_items_total", model=model, outcome="succeeded") == 6
    assert value("piqueue_items_total", model=model, outcome="not_an_image") == 1
    assert value("piqueue_items_total", model=model, outcome="fetch_blocked_address") == 1
    assert value("piqueue_chunk_attempts_total", attempt="1") == CHUNKS
    assert value("piqueue_chunk_seconds_count") == CHUNKS
    assert value("piqueue_queue_seconds_count", lane="interactive") == CHUNKS
    assert value("piqueue_fetch_seconds_count") == 5
    # One picture occurs three times; whether the cache has it in time depends on the threads.
    decoded = value("piqueue_decode_seconds_count")
    assert 4 <= decoded <= 6
    assert value("piqueue_batch_items_sum", model=model) == decoded
    batches = value("piqueue_batch_items_count", model=model)
    assert value("piqueue_inference_seconds_count", model=model) == batches
    assert 0 < value("piqueue_inference_seconds_sum", model=model) < 60
    assert value("process_resident_memory_bytes") > 10e6


def test_a_claim_knows_how_long_its_job_waited_for_this_turn(redis_client: Redis) -> None:
    store = JobStore(redis_client)
    job_id, _ = submit(store, total=20)
    redis_client.hincrby(f"piqueue:{{{job_id}}}:meta", "ready_ms", -5000)
    assert 5 <= claim(store, job_id, 0).waited_s < 60
    assert claim(store, job_id, 1, lease_s=0.001).waited_s < 5
    recover_until_due(store)
    assert claim(store, job_id, 1).waited_s < 5


def test_attempts_from_the_third_on_are_one_series(redis_client: Redis) -> None:
    store, metrics = JobStore(redis_client), WorkerMetrics()
    job_id, _ = submit(store, total=1)
    for _ in range(5):
        metrics.claimed(claim(store, job_id, 0, lease_s=0.001))
        recover_until_due(store)
    counted = {
        attempt: metrics.registry.get_sample_value(
            "piqueue_chunk_attempts_total", {"attempt": attempt}
        )
        for attempt in ("1", "2", "3+")
    }
    assert counted == {"1": 1, "2": 1, "3+": 3}


class Broken:
    """A predictor whose forward pass always fails."""

    card: Card
    variant: VariantName = "int8"
    batched = True
    picture_ms = 3.5

    def warm_up(self) -> None:
        pass

    def predict(self, images: Sequence[NDArray[np.uint8]]) -> list[Prediction]:
        raise RuntimeError(f"out of memory for {len(images)}")


def test_a_batch_that_fails_is_timed_too() -> None:
    metrics = WorkerMetrics()
    predictor = TimedPredictor(Broken(), MODEL.ref, metrics)
    with pytest.raises(RuntimeError, match="out of memory"):
        predictor.predict([np.zeros((1, 1, 3), np.uint8)] * 3)
    value = metrics.registry.get_sample_value
    assert value("piqueue_batch_items_sum", {"model": "scenes@1"}) == 3
    assert value("piqueue_inference_seconds_count", {"model": "scenes@1"}) == 1


def test_the_speed_of_a_variant_is_a_metric() -> None:
    metrics = WorkerMetrics()
    predictor = TimedPredictor(Broken(), MODEL.ref, metrics)
    assert (predictor.variant, predictor.picture_ms) == ("int8", 3.5)
    labels = {"model": "scenes@1", "variant": "int8"}
    assert metrics.registry.get_sample_value("piqueue_variant_seconds", labels) == 0.0035


def test_two_workers_cannot_serve_their_metrics_on_one_port() -> None:
    settings = load_settings(metrics_port=listenable_port("127.0.0.1", 0))
    server = serve_metrics(WorkerMetrics(), settings)
    assert server is not None
    try:
        with pytest.raises(SettingsInvalid, match="another PIQUEUE_METRICS_PORT"):
            serve_metrics(WorkerMetrics(), settings)
    finally:
        server.shutdown()
        server.server_close()
    assert serve_metrics(WorkerMetrics(), load_settings(metrics_port=0)) is None
