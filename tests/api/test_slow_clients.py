"""Hundreds of slow uploads, downloads and event streams at once, beside a client that works."""

import asyncio
import random
import socket
import statistics
import time
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from scripts.local.stack import Stack
from tests.api.stored_jobs import ledger, scored, store_job
from worker.jobs.items import ItemSpec
from worker.jobs.ledger.api_keys import ANYONE, KeyStore
from worker.jobs.record import Job

SLOW_CLIENTS_EACH = 200
ITEMS = 20_000
ROUNDS = 25
BOUND_S = 0.25
# Other processes of this machine may slow down everything alike.
BOUND_IN_IDLE_TIMES = 10
# Two bytes every second are more than what held the threads of the API before.
SLOW_S = 1.0
KINDS = (
    ("text/csv", b"url\nhttp://127.0.0.1:9/a.jpg\n"),
    ("application/x-ndjson", b'{"url":"http://127.0.0.1:9/a.jpg"}\n'),
    ("application/json", b'{"urls":["http://127.0.0.1:9/a.jpg"'),
    ("multipart/form-data; boundary=x", b'--x\r\nContent-Disposition: form-data; name="files"'),
)


@pytest.fixture
def api(tmp_path: Path) -> Iterator[Stack]:
    """Run an API process and Redis, without workers, which would take time from both."""
    env = {"PIQUEUE_REQUEST_TIMEOUT_S": "300"}
    with Stack(tmp_path, workers=0, env=env) as running:
        yield running


class SlowClients:
    """Connections that send and read as slowly as the test says."""

    def __init__(self, api: Stack, key: str | None) -> None:
        host, port = api.url.removeprefix("http://").split(":")
        self._address = host, int(port)
        self._key = f"Authorization: Bearer {key}\r\n" if key else ""
        self._loop = asyncio.get_running_loop()
        self.beginnings: list[bytes] = []

    async def _open(self, request: str, headers: str = "", body: bytes = b"") -> socket.socket:
        peer = socket.socket()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.setblocking(False)
        await self._loop.sock_connect(peer, self._address)
        head = f"{request} HTTP/1.1\r\nHost: localhost\r\n{self._key}{headers}\r\n"
        await self._loop.sock_sendall(peer, head.encode() + body)
        return peer

    async def upload(self, kind: str, body: bytes) -> None:
        """Send a body of a megabyte, a byte at a time."""
        headers = f"Content-Type: {kind}\r\nContent-Length: 1000000\r\n"
        with await self._open("POST /jobs", headers, body) as peer:
            await asyncio.sleep(SLOW_S * random.random())
            while True:
                await asyncio.sleep(SLOW_S)
                await self._loop.sock_sendall(peer, b"\n\n")

    async def read(self, path: str) -> None:
        """Read an answer, some bytes at a time."""
        with await self._open(f"GET {path}") as peer:
            self.beginnings.append(await self._loop.sock_recv(peer, len(b"HTTP/1.1 200 OK")))
            await asyncio.sleep(SLOW_S * random.random())
            while True:
                await asyncio.sleep(SLOW_S)
                assert await self._loop.sock_recv(peer, 100), "the API has closed a slow connection"


@asynccontextmanager
async def running(*clients: Coroutine[Any, Any, None]) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Run clients that do not end by themselves while the block runs."""
    tasks = [asyncio.create_task(client) for client in clients]
    try:
        yield tasks
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def measure(client: httpx2.AsyncClient, job: Job) -> list[float]:
    """Send requests of several kinds, one after the other; returns the seconds of each."""
    took_s = []
    for _ in range(ROUNDS):
        for method, path, body in (
            ("GET", f"/jobs/{job.id}?results=false", None),
            ("GET", "/jobs?limit=5", None),
            ("GET", "/limits", None),
            ("POST", "/jobs", {"urls": ["http://127.0.0.1:9/a.jpg"]}),
            ("GET", f"/jobs/{job.id}/results?limit=20", None),
        ):
            began = time.monotonic()
            answer = await client.request(method, path, json=body)
            took_s.append(time.monotonic() - began)
            assert answer.status_code in (200, 202), answer.text
    return took_s


@pytest.mark.parametrize("with_keys", [False, True], ids=["no keys", "one key holds all"])
def test_slow_clients_do_not_delay_the_requests_of_others(api: Stack, with_keys: bool) -> None:
    asyncio.run(_test(api, with_keys=with_keys))


async def _test(api: Stack, *, with_keys: bool) -> None:
    with ledger(api.redis_url) as store:
        keys = KeyStore(store._redis)
        slow_key, key = (keys.add("slow"), keys.add("other")) if with_keys else (None, None)
        owners = {known.name: known.owner for known in keys.all()}
        jobs = {
            name: store_job(
                store,
                count,
                lambda at: ItemSpec(str(at), f"https://example.com/pictures/{at}.jpg"),
                lambda at: scored(0.9, 0.1, 0.2, at / ITEMS),
                owner=owners.get(name, ANYONE),
            )
            for name, count in (("slow", ITEMS), ("other", 100))
        }
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    slow_headers = {"Authorization": f"Bearer {slow_key}"} if slow_key else {}
    async with httpx2.AsyncClient(base_url=api.url, timeout=30, headers=headers) as client:
        draft = await client.post("/jobs", json={"draft": True}, headers=slow_headers)
        idle_s = await measure(client, jobs["other"])
        slow = SlowClients(api, slow_key)
        each = range(SLOW_CLIENTS_EACH)
        async with running(
            *(slow.upload(*KINDS[at % len(KINDS)]) for at in each),
            *(slow.read(f"/jobs/{jobs['slow'].id}/results?format=jsonl") for _ in each),
            *(slow.read(f"/jobs/{draft.json()['id']}/events") for _ in each),
        ) as clients:
            beside_s = []
            while len(slow.beginnings) < 2 * SLOW_CLIENTS_EACH:
                # From the first of them on, others are served.
                beside_s += await measure(client, jobs["other"])
            beside_s += await measure(client, jobs["other"])
            assert not any(client.done() for client in clients), "the API has refused a slow client"
    assert set(slow.beginnings) == {b"HTTP/1.1 200 OK"}
    idle_p95_s, beside_p95_s = (
        statistics.quantiles(took_s, n=20)[-1] for took_s in (idle_s, beside_s)
    )
    assert beside_p95_s < max(BOUND_S, BOUND_IN_IDLE_TIMES * idle_p95_s)
