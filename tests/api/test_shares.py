"""The shares of owners: threads, and requests in progress."""

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from typing import IO, NoReturn

import httpx2
import pytest
from redis import Redis

from api.intake import bodies
from api.intake.bodies import JsonBody, read_json
from api.main import create_app
from api.routes import jobs
from api.shares import OwnerThreads
from worker.jobs.errors import JobNotFound
from worker.jobs.ledger.api_keys import KeyStore
from worker.jobs.record import Job
from worker.jobs.settings import load_settings

CSV = b"url\nhttp://127.0.0.1:9/a.jpg\n"


def test_an_owner_has_a_share_of_the_threads_and_the_rest_is_for_others() -> None:
    released, running = threading.Event(), set[str]()

    def hold(name: str) -> None:
        running.add(name)
        assert released.wait(20)

    async def run() -> None:
        threads = OwnerThreads(4, share=2)
        calls = [
            asyncio.create_task(threads.run(owner, hold, f"{owner}{number}"))
            for owner in "abc"
            for number in range(3)
        ]
        deadline = time.monotonic() + 20
        while len(running) < 4:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        assert running == {"a0", "a1", "b0", "b1"}
        released.set()
        await asyncio.gather(*calls)
        assert len(running) == 9

    asyncio.run(asyncio.wait_for(run(), 30))


def test_an_iterator_has_no_thread_between_its_values() -> None:
    async def run() -> list[int]:
        threads = OwnerThreads(1, share=1)
        values = []
        async for value in threads.each("a", iter(range(3))):
            values.append(value)
            values.append(await threads.run("a", lambda: 10))
        return values

    assert asyncio.run(run()) == [0, 10, 1, 10, 2, 10]


def test_one_key_cannot_take_all_connections(redis_client: Redis, redis_url: str) -> None:
    keys = KeyStore(redis_client)
    slow, other = ({"Authorization": f"Bearer {keys.add(name)}"} for name in ("slow", "other"))
    kind = {"content-type": "text/csv"}

    async def run() -> None:
        app = create_app(load_settings(redis_url=redis_url, max_connections=10))
        done = asyncio.Event()

        async def slow_body() -> AsyncIterator[bytes]:
            yield CSV[:4]
            await done.wait()
            yield CSV[4:]

        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            uploads = [
                asyncio.create_task(client.post("/jobs", content=slow_body(), headers=slow | kind))
                for _ in range(5)
            ]
            while app.state.services.open_requests.counts.total() < 5:
                await asyncio.sleep(0.01)
            refused = await client.get("/jobs", headers=slow)
            assert (refused.status_code, refused.json()["code"]) == (429, "over_quota")
            assert int(refused.headers["retry-after"]) > 0
            assert (await client.get("/jobs", headers=other)).status_code == 200
            done.set()
            assert {(await upload).status_code for upload in uploads} == {202}
            assert (await client.get("/jobs", headers=slow)).status_code == 200
            assert not app.state.services.open_requests.counts

    asyncio.run(asyncio.wait_for(run(), 30))


def test_an_owner_has_two_large_json_bodies_in_memory_at_a_time(
    redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    released, read, submitted = threading.Event(), list[int](), list[int]()
    body = b'{"urls":[%s"http://127.0.0.1:9/"]}' % (b'"http://127.0.0.1:9/",' * 13_000)

    def counted(file: IO[bytes]) -> JsonBody:
        read.append(1)
        return read_json(file)

    def held(*_: object, **_named: object) -> NoReturn:
        submitted.append(1)
        assert released.wait(20)
        raise JobNotFound("job_x")

    monkeypatch.setattr(bodies, "read_json", counted)
    monkeypatch.setattr(jobs, "submit", held)

    async def run() -> None:
        transport = httpx2.ASGITransport(create_app(load_settings(redis_url=redis_url)))
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            kind = {"content-type": "application/json"}
            answers = [
                asyncio.create_task(client.post("/jobs", content=body, headers=kind))
                for _ in range(6)
            ]
            while len(submitted) < 2:
                await asyncio.sleep(0.01)
            assert len(read) == 2
            released.set()
            assert {(await answer).status_code for answer in answers} == {404}
        assert len(read) == 6

    asyncio.run(asyncio.wait_for(run(), 30))


def test_pages_of_results_of_one_owner_leave_threads_for_other_requests(
    redis_client: Redis, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = KeyStore(redis_client)
    greedy, other = ({"Authorization": f"Bearer {keys.add(name)}"} for name in ("greedy", "other"))

    async def run() -> None:
        app = create_app(load_settings(redis_url=redis_url))
        store, released, running = app.state.services.store, threading.Event(), list[str]()

        def hold(job_id: str) -> Job:
            running.append(job_id)
            assert released.wait(20)
            raise JobNotFound(job_id)

        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://localhost") as client:
            with monkeypatch.context() as patched:
                patched.setattr(store, "job", hold)
                lists = [
                    asyncio.create_task(client.get("/jobs/job_x/results", headers=greedy))
                    for _ in range(60)
                ]
                while len(running) < 2:
                    await asyncio.sleep(0.01)
            assert (await client.get("/jobs", headers=other)).status_code == 200
            assert (await client.get("/limits", headers=greedy)).status_code == 200
            assert len(running) == 2
            released.set()
            assert {(await answer).status_code for answer in lists} == {404}

    asyncio.run(asyncio.wait_for(run(), 30))
