"""Server-sent events over HTTP: progress, reconnection, erasure, shutdown."""

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import islice, pairwise
from pathlib import Path

import httpx2
import pytest
import uvicorn
from aiohttp import web
from redis import Redis

from api.job_events import JobEvents
from api.main import create_app
from scripts.local.embedded_redis import EmbeddedRedis
from scripts.local.stack import listenable_port
from tests.api.polling import wait_done
from tests.api.sse import Event, read_events
from tests.pictures import jpeg
from tests.worker.fetching.site import Site
from tests.worker.jobs.ledger.test_store import claim, scored, submit
from worker.jobs.ledger.store import JobStore
from worker.jobs.settings import load_settings


@contextmanager
def following(client: httpx2.Client, path: str, **headers: str) -> Iterator[Iterator[Event]]:
    with client.stream("GET", path, headers=headers) as answer:
        yield read_events(answer)


@contextmanager
def serving(redis_url: str) -> Iterator[tuple[httpx2.Client, JobEvents]]:
    """Run the API in this process, so that its state can be inspected."""
    app = create_app(load_settings(redis_url=redis_url))
    port = listenable_port("127.0.0.1", 0)
    server = uvicorn.Server(
        uvicorn.Config(app, port=port, log_config=None, timeout_graceful_shutdown=1)
    )
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=60) as client:
            yield client, app.state.services.job_events
    finally:
        server.should_exit = True
        thread.join()


def test_a_job_is_followed_from_its_submission_to_its_end(client: httpx2.Client) -> None:
    held = asyncio.Event()

    async def hold(_request: web.BaseRequest) -> web.StreamResponse:
        await held.wait()
        return web.Response(body=jpeg(1))

    with Site({"/hold.jpg": hold}) as site:
        job = client.post("/jobs", json={"urls": [site.url("/hold.jpg")] * 3}).json()
        with following(client, job["links"]["events"]) as events:
            first = next(events)
            assert first.name == "progress"
            assert first.body["id"] == job["id"]
            assert first.body["counts"]["succeeded"] == 0
            site.call(held.set)
            *others, last = events
    assert {event.name for event in others} <= {"progress"}
    assert (last.name, last.body["status"]) == ("done", "succeeded")
    read = client.get(job["links"]["self"], params={"results": "false"}).json()
    assert last.body == read
    assert first.id != last.id


def test_progress_is_sent_at_most_twice_a_second_and_only_increases(
    redis_client: Redis, redis_url: str
) -> None:
    store = JobStore(redis_client)
    job_id, _ = submit(store, total=5000, chunk_items=1)
    stop = threading.Event()

    def score() -> int:
        """Commit chunk after chunk until told to stop; gives their count."""
        count = 0
        while not stop.wait(0.001):
            taken = claim(store, job_id, count)
            store.commit(taken, scored(taken))
            count += 1
        return count

    with serving(redis_url) as (client, _), ThreadPoolExecutor() as scorer:
        started = time.monotonic()
        with following(client, f"/jobs/{job_id}/events") as events:
            first, changes = next(events), scorer.submit(score)
            shown = [event.body["counts"] for event in (first, *islice(events, 4))]
            elapsed_s = time.monotonic() - started
            stop.set()
    assert elapsed_s > 4 * 0.5
    assert changes.result() > 50, "too few changes to exceed the rate"
    counts = [each["succeeded"] for each in shown]
    assert counts == sorted(counts)
    assert counts[0] < counts[-1]
    # A chunk that is claimed changes the job too, so only the whole of two events must differ.
    assert all(one != following for one, following in pairwise(shown))


def test_every_connection_begins_with_the_whole_job(client: httpx2.Client) -> None:
    draft = client.post("/jobs", json={"draft": True, "name": "album"}).json()
    for last_id in ("", "draft-0", "anything"):
        with following(client, draft["links"]["events"], **{"Last-Event-ID": last_id}) as events:
            first = next(events)
            assert (first.name, first.body["name"]) == ("progress", "album")


def test_the_stream_of_a_finished_job_is_one_event(client: httpx2.Client) -> None:
    job = wait_done(client, client.post("/jobs", json={"urls": ["http://127.0.0.1:9/"]}).json())
    for _ in range(2):
        with following(client, job["links"]["events"]) as events:
            (only,) = events
        assert (only.name, only.body["status"]) == ("done", "failed")


def test_the_stream_ends_when_the_job_is_erased(client: httpx2.Client) -> None:
    draft = client.post("/jobs", json={"draft": True}).json()
    with following(client, draft["links"]["events"]) as events:
        assert next(events).body["status"] == "draft"
        client.delete(draft["links"]["self"])
        (last,) = events
    assert (last.name, last.body) == ("erased", {"id": draft["id"]})


def test_the_stream_ends_when_the_job_is_cancelled(client: httpx2.Client) -> None:
    draft = client.post("/jobs", json={"draft": True}).json()
    with following(client, draft["links"]["events"]) as events:
        next(events)
        client.post(draft["links"]["cancel"])
        (last,) = events
    assert (last.name, last.body["status"]) == ("done", "cancelled")


def test_an_unknown_job_is_a_404_and_no_stream(client: httpx2.Client) -> None:
    answer = client.get("/jobs/job_x/events", headers={"Accept": "text/event-stream"})
    assert (answer.status_code, answer.json()["code"]) == (404, "job_not_found")
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_client_that_disconnects_leaves_no_subscription(redis_url: str) -> None:
    with serving(redis_url) as (client, job_events), ExitStack() as streams:
        kept = []
        for _ in range(3):
            draft = client.post("/jobs", json={"draft": True}).json()
            for _ in range(4):
                events = streams.enter_context(following(client, draft["links"]["events"]))
                next(events)
                kept.append(events)
        assert job_events.subscribed_job_count == 3
        streams.close()
        deadline = time.monotonic() + 30
        while job_events.subscribed_job_count:
            assert time.monotonic() < deadline
            time.sleep(0.01)


def test_a_stream_without_events_sends_pings(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fastapi.routing._PING_INTERVAL", 0.05)
    with serving(redis_url) as (client, _):
        draft = client.post("/jobs", json={"draft": True}).json()
        with following(client, draft["links"]["events"]) as events:
            # A ping may also come while the job is read.
            assert next(event for event in events if not event.comment).name == "progress"
            assert [next(events).comment for _ in range(3)] == ["ping"] * 3


def test_a_stream_survives_a_restart_of_redis(tmp_path: Path) -> None:
    with EmbeddedRedis(tmp_path) as redis, serving(redis.url) as (client, _):
        draft = client.post("/jobs", json={"draft": True}).json()
        with following(client, draft["links"]["events"]) as events:
            next(events)
            assert redis.pid is not None
            os.kill(redis.pid, signal.SIGTERM)
            redis.process.wait()
            redis.process.start()
            client.post(draft["links"]["cancel"]).raise_for_status()
            (last,) = (event for event in events if not event.comment)
        assert (last.name, last.body["status"]) == ("done", "cancelled")
