"""What a job survives: real worker processes are killed in the middle of it."""

import asyncio
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from aiohttp import web
from redis import Redis

from scripts.stack import Stack
from tests.api.polling import all_results, wait_done
from tests.conftest import STACK_ENV
from tests.pictures import jpeg
from tests.worker.site import Site
from worker.jobs.queue import DoorBell, make_celery
from worker.jobs.record import Lane
from worker.jobs.settings import load_settings

POISON = Path(__file__).parent / "poison"


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run a stack of its own whose workers may be killed; leases are short."""
    env = {**STACK_ENV, "PIQUEUE_LEASE_S": "4", "PIQUEUE_CHUNK_ITEMS": "8"}
    with Stack(tmp_path_factory.mktemp("fragile"), workers=2, env=env) as running:
        yield running


@pytest.fixture
def fragile_client(fragile: Stack) -> Iterator[httpx2.Client]:
    with httpx2.Client(base_url=fragile.url, timeout=60) as client:
        yield client


def test_a_job_whose_workers_are_killed_still_ends_with_each_item_once(
    fragile: Stack, fragile_client: httpx2.Client
) -> None:
    picture = jpeg(1)

    async def slowly(_request: web.BaseRequest) -> web.StreamResponse:
        await asyncio.sleep(0.1)
        return web.Response(body=picture)

    answers = {f"/{index}.jpg": slowly for index in range(300)}
    with Site(answers) as site:
        urls = [site.url(f"/{index}.jpg") for index in range(300)]
        job = fragile_client.post("/jobs", json={"urls": urls}).json()
        for share in (40, 120):
            while fragile_client.get(job["links"]["self"]).json()["counts"]["succeeded"] < share:
                pass
            for pid in fragile.workers:
                os.kill(pid, signal.SIGKILL)
        done = wait_done(fragile_client, job)

    assert done["status"] == "succeeded", done["failures"]
    results = all_results(fragile_client, job)
    assert [result["index"] for result in results] == list(range(300))
    assert [result["source"]["url"] for result in results] == urls
    assert max(result["attempts"] for result in results) > 1, "no worker held a chunk when killed"


def test_a_picture_that_kills_its_worker_is_named_and_its_neighbours_are_scored(
    tmp_path: Path,
) -> None:
    pictures = [jpeg(seed) for seed in range(10)]
    pictures[6] += b"POISON"
    env = {**STACK_ENV, "PIQUEUE_LEASE_S": "2", "PYTHONPATH": str(POISON)}
    with Stack(tmp_path, env=env) as stack, httpx2.Client(base_url=stack.url) as client:
        files = [("files", (f"{index}.jpg", picture)) for index, picture in enumerate(pictures)]
        done = wait_done(client, client.post("/jobs", files=files).json())

    assert done["status"] == "partially_succeeded"
    codes = [result["error"] and result["error"]["code"] for result in done["results"]]
    assert codes == [None] * 6 + ["worker_lost"] + [None] * 3
    assert done["results"][6]["attempts"] == 3


def test_a_worker_told_to_stop_finishes_what_it_holds(tmp_path: Path) -> None:
    picture, held = jpeg(1), asyncio.Event()

    async def hold(_request: web.BaseRequest) -> web.StreamResponse:
        await held.wait()
        return web.Response(body=picture)

    # No lease could run out within this test: only the worker itself can end the job in time.
    env = {**STACK_ENV, "PIQUEUE_LEASE_S": "600"}
    with (
        Site({"/hold.jpg": hold}) as site,
        Stack(tmp_path, env=env) as stack,
        httpx2.Client(base_url=stack.url) as client,
    ):
        job = client.post("/jobs", json={"urls": [site.url("/hold.jpg")]}).json()
        while not client.get(job["links"]["self"]).json()["counts"]["running"]:
            pass
        (pid,) = stack.workers
        os.kill(pid, signal.SIGTERM)
        site.call(held.set)
        done = wait_done(client, job)
        assert done["status"] == "succeeded"
        assert done["results"][0]["attempts"] == 1


def test_a_message_delivered_three_times_counts_once(
    fragile: Stack, fragile_client: httpx2.Client
) -> None:
    picture, held = jpeg(1), asyncio.Event()

    async def hold(_request: web.BaseRequest) -> web.StreamResponse:
        await held.wait()
        return web.Response(body=picture)

    bell = DoorBell(make_celery(load_settings(redis_url=fragile.redis_url)))
    with Site({"/hold.jpg": hold}) as site:
        job = fragile_client.post("/jobs", json={"urls": [site.url("/hold.jpg")]}).json()
        for _ in range(2):
            bell.ring(job["id"], [0], Lane.INTERACTIVE)
        with Redis.from_url(fragile.redis_url) as redis:
            while redis.llen("piqueue:interactive"):
                time.sleep(0.01)
        site.call(held.set)
        done = wait_done(fragile_client, job)
        assert len(site.requests) == 1
    assert done["counts"]["succeeded"] == done["counts"]["total"] == 1
