"""Neighbours: what one API key sees of a Piqueue while another misuses it."""

import asyncio
import io
import math
import socket
import struct
import time
import zlib
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx2
from PIL import Image

from scripts.benchmarks.support.connection import Connection
from scripts.benchmarks.support.figures import percentile
from scripts.benchmarks.support.synthetic_jobs import (
    claim_all,
    score_all,
    submit_table,
    write_table,
)
from scripts.faults.observer import JobStalled
from scripts.faults.pictures import PictureServer
from scripts.local.stack import Stack
from scripts.text_table import markdown
from worker.fetching.loop_thread import LoopThread
from worker.jobs.ledger.api_keys import KeyStore
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.store import JobStore

LATENCY_BOUND_S = 0.25
# A neighbour that submits nothing takes processor time of the API alone.
JOB_BOUND = 2.2
# A bulk job keeps 20 % of the items beside small jobs, so it takes 5 times as long; more as
# chunks of few items take more processor time an item. Beyond twice that it starves.
SHARE_BOUND = 10.0
# Shares are of items, whatever they cost, so there is no bound beside pictures that cost more.
NO_BOUND = math.inf
_HEADER = ("neighbour", "on", "answers", "p95 alone", "p95", "job alone", "job", "ratio", "bound")
_ROWS = 20_000
_SMALL_ITEMS = 8
_PAUSE_S = 0.05
_SETTLE_S = 2.0
_ANSWER_S = 60.0
_JOB_DEADLINE_S = 600.0


@dataclass
class Neighbour:
    """The other key, and what it sends; `answers` counts the responses that it got."""

    http: httpx2.AsyncClient
    finished_job: str
    draft: str
    small_job: list[str]
    hostile: dict[str, bytes]
    answers: int = 0

    async def connect(
        self, method: str, target: str, *lines: str
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Send the head of a request on a connection of its own, with small buffers."""
        url = self.http.base_url
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, (url.host, url.port))
        reader, writer = await asyncio.open_connection(sock=connection, limit=1024)
        key = f"Authorization: {self.http.headers['Authorization']}"
        head = (f"{method} {target} HTTP/1.1", f"Host: {url.host}:{url.port}", key, *lines, "", "")
        writer.write("\r\n".join(head).encode())
        return reader, writer


async def slow_upload(neighbour: Neighbour) -> None:
    """Send an upload of 10 MB, two bytes a second, until the API refuses it."""
    lines = ("Content-Type: application/json", "Content-Length: 10000000")
    reader, writer = await neighbour.connect("POST", "/jobs", *lines)
    with closing(writer):
        answer = asyncio.create_task(reader.read(1))
        while not answer.done():
            writer.write(b"  ")
            await asyncio.sleep(1)


async def slow_download(neighbour: Neighbour) -> None:
    """Read a download of several megabytes, a kilobyte a second."""
    target = f"/jobs/{neighbour.finished_job}/results?format=jsonl"
    reader, writer = await neighbour.connect("GET", target)
    with closing(writer):
        while await reader.read(1024):
            await asyncio.sleep(1)


async def event_stream(neighbour: Neighbour) -> None:
    """Follow a draft, whose events never end."""
    reader, writer = await neighbour.connect("GET", f"/jobs/{neighbour.draft}/events")
    with closing(writer):
        while await reader.read(1024):
            pass


async def filtered_lists(neighbour: Neighbour) -> None:
    """List jobs of one status, and results with a filter that none matches."""
    results = f"/jobs/{neighbour.finished_job}/results?status=failed&label=beach&limit=1000"
    for target in (results, "/jobs?status=succeeded&limit=1000"):
        (await neighbour.http.get(target)).raise_for_status()


async def small_job(neighbour: Neighbour) -> None:
    """Submit a job of a few pictures."""
    answer = await neighbour.http.post("/jobs", json={"urls": neighbour.small_job})
    answer.raise_for_status()


async def hostile_job(neighbour: Neighbour) -> None:
    """Submit pictures that are costly to decode, and wait for their end."""
    files = [("files", (name, payload)) for name, payload in neighbour.hostile.items()]
    headers = {"Prefer": "wait=30"}
    (await neighbour.http.post("/jobs", files=files, headers=headers)).raise_for_status()


@dataclass(frozen=True)
class Misuse:
    """What a neighbour does again and again, on how many connections at once, and what a job of
    another key may take beside it in times of its duration alone."""

    act: Callable[[Neighbour], Awaitable[None]]
    connections: int
    job_bound: float = JOB_BOUND


NEIGHBOURS = {
    "slow uploads": Misuse(slow_upload, 200),
    "slow downloads": Misuse(slow_download, 200),
    "event streams": Misuse(event_stream, 200),
    "lists with filters": Misuse(filtered_lists, 45),
    "small jobs": Misuse(small_job, 4, SHARE_BOUND),
    "hostile pictures": Misuse(hostile_job, 4, NO_BOUND),
}


@dataclass(frozen=True)
class Work:
    """What the good key measures: the 95th percentile of its requests, and the time of its job."""

    p95_s: float
    job_s: float


@dataclass(frozen=True)
class NeighbourReport:
    """The work of the good key alone and beside a neighbour, which got so many answers."""

    neighbour: str
    answers: int
    alone: Work
    beside: Work

    @property
    def job_ratio(self) -> float:
        """How many times longer the job takes beside the neighbour."""
        return self.beside.job_s / self.alone.job_s

    @property
    def kept(self) -> bool:
        """Whether the requests stayed fast and the job got its part of the workers."""
        bound = NEIGHBOURS[self.neighbour].job_bound
        return self.beside.p95_s <= LATENCY_BOUND_S and self.job_ratio <= bound

    def row(self) -> tuple[str, ...]:
        """Its line of the table under `_HEADER`."""
        latencies = (f"{work.p95_s * 1000:.0f} ms" for work in (self.alone, self.beside))
        durations = (f"{work.job_s:.1f} s" for work in (self.alone, self.beside))
        misuse = NEIGHBOURS[self.neighbour]
        job_bound = "none" if misuse.job_bound == NO_BOUND else f"{misuse.job_bound:g}"
        bound = f"{LATENCY_BOUND_S * 1000:.0f} ms, {job_bound}"
        counts = (str(misuse.connections), str(self.answers))
        return (self.neighbour, *counts, *latencies, *durations, f"{self.job_ratio:.2f}", bound)


def run_neighbour(name: str, items: int, workers: int) -> NeighbourReport:
    """Measure a job of `items` pictures of one key, alone and beside a neighbour.

    Raises:
        StartFailed: the stack does not start.
        JobStalled: the job of the good key does not end, or not every item has scores.
    """
    misuse = NEIGHBOURS[name]
    env = {"PIQUEUE_FETCH_ALLOW_NETWORKS": "127.0.0.1/32"}
    with (
        TemporaryDirectory(prefix="piqueue-chaos-") as folder,
        Stack(Path(folder), workers=workers, env=env) as stack,
        PictureServer() as pictures,
    ):
        with connect(stack.redis_url) as redis:
            store = JobStore(redis)
            good, other = ({"Authorization": f"Bearer {KeyStore(redis).add(one)}"} for one in "ab")
            with Connection(stack.url, headers=other) as connection:
                write_table(Path(folder, "rows.csv"), _ROWS)
                finished = submit_table(connection, Path(folder, "rows.csv"))["id"]
                score_all(store, claim_all(store))
                draft = connection.post("/jobs", {"draft": True})["id"]
        urls = [pictures.url(index) for index in range(items)]
        with Connection(stack.url, headers=good) as connection:
            _work(connection, urls[: items // 4])  # warms up
            alone = _work(connection, urls)
            http = httpx2.AsyncClient(
                base_url=stack.url, headers=other, timeout=_ANSWER_S, trust_env=False
            )
            neighbour = Neighbour(http, finished, draft, urls[:_SMALL_ITEMS], hostile_pictures())
            with _acting(neighbour, misuse):
                time.sleep(_SETTLE_S)
                beside = _work(connection, urls)
    return NeighbourReport(name, neighbour.answers, alone, beside)


def table(reports: Sequence[NeighbourReport]) -> str:
    """Format the reports as a Markdown table, with a verdict below."""
    missed = [report.neighbour for report in reports if not report.kept]
    verdict = f"NOT KEPT beside {', '.join(missed)}" if missed else "every promise was kept"
    return f"{markdown([_HEADER, *(report.row() for report in reports)])}\n\n{verdict}"


def _work(connection: Connection, urls: Sequence[str]) -> Work:
    """Submit a job, and read it, list jobs and open and delete a draft until it is done."""
    started = time.monotonic()
    job = connection.post("/jobs", {"urls": list(urls)})
    latencies_s = [connection.last_s]
    while not job["done"]:
        if time.monotonic() - started > _JOB_DEADLINE_S:
            raise JobStalled(f"after {_JOB_DEADLINE_S:g} s beside a neighbour: {job['counts']}")
        draft = connection.post("/jobs", {"draft": True})
        latencies_s.append(connection.last_s)
        for method, target in (("DELETE", f"/jobs/{draft['id']}"), ("GET", "/jobs")):
            connection.send(method, target)
            latencies_s.append(connection.last_s)
        job = connection.get(f"/jobs/{job['id']}?results=false")
        latencies_s.append(connection.last_s)
        time.sleep(_PAUSE_S)
    if job["counts"]["succeeded"] != len(urls):
        raise JobStalled(f"items fail beside a neighbour: {job['counts']}")
    return Work(percentile(latencies_s, 0.95), time.monotonic() - started)


@contextmanager
def _acting(neighbour: Neighbour, misuse: Misuse) -> Iterator[None]:
    """Misuse the service while the block runs."""

    async def repeat() -> None:
        while True:
            try:
                await misuse.act(neighbour)
                neighbour.answers += 1
            except (OSError, httpx2.HTTPError):  # refused
                await asyncio.sleep(1)

    loop = LoopThread("neighbour")
    running = [loop.begin(repeat()) for _ in range(misuse.connections)]
    try:
        yield
        for one in running:
            if one.done():
                one.result()
    finally:
        loop.close(neighbour.http.aclose())


def hostile_pictures() -> dict[str, bytes]:
    """Pictures, by name, whose headers or pixels cost much more than their size suggests."""

    def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
        file = io.BytesIO()
        image.save(file, kind, **options)
        return file.getvalue()

    def chunk(name: bytes, body: bytes) -> bytes:
        crc = zlib.crc32(name + body)
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", crc)

    small, gradient = Image.new("RGB", (48, 32)), Image.linear_gradient("L")
    png, jpeg = encoded(small, "PNG"), encoded(small, "JPEG")
    scans = encoded(gradient, "JPEG", progressive=True)
    last = scans.rindex(b"\xff\xda")
    profile = chunk(b"iCCP", b"a\0\0" + zlib.compress(b"\0" * 1_000_000, 9))
    return {
        "fill-bytes.jpg": jpeg[:2] + b"\xff" * 1_000_000 + jpeg[2:],
        "scans.jpg": scans[:last] + scans[last:-2] * 5000 + scans[-2:],
        "profiles.png": png[:33] + profile * 2000 + png[33:],
        "large.webp": encoded(gradient.resize((4000, 3000)), "WEBP", lossless=True, method=0),
        "large.tif": encoded(Image.new("L", (6000, 6000)), "TIFF", compression="tiff_deflate"),
    }
