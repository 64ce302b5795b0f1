"""How workers are shared among owners, with a simulated engine: 10 ms a picture, two at once."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from redis import Redis

from scripts.benchmarks.support.benchmark_run import ENV, BenchmarkRun
from scripts.benchmarks.support.connection import Connection, picture_field
from scripts.benchmarks.support.figures import Figure, alternate, percentile, ratios
from scripts.benchmarks.support.pictures import make_picture
from scripts.local.embedded_redis import EmbeddedRedis
from scripts.local.stack import Stack
from worker.jobs.items import ItemResult, ItemSpec
from worker.jobs.ledger.api_keys import KeyStore
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.layout import NewJob, Shape
from worker.jobs.ledger.load import Load
from worker.jobs.ledger.store import JobStore
from worker.jobs.models.catalog import ModelCatalog
from worker.jobs.models.folder import ModelFolder
from worker.jobs.record import Lane, new_job_id
from worker.jobs.settings import ARTIFACTS_PATH

_ENGINE = {"PYTHONPATH": str(Path(__file__).parent / "simulated_engine"), "PIQUEUE_THREADS": "2"}
_SLOTS = 4  # of such a worker
_PAUSE_S = 0.1
_SMALL_JOBS, _SMALL_ITEMS = 300, 64
_BULK_SHARE, _CHUNK_ITEMS = 0.2, 32
_MODEL = ModelCatalog([ModelFolder(ARTIFACTS_PATH)], "scenes").resolve(None)


@dataclass
class Service:
    """A running Piqueue, and the URLs of pictures."""

    stack: Stack
    redis: Redis
    urls: list[str]

    def owner(self, weight: int = 1) -> Connection:
        """Connect with the key of a new owner."""
        key = KeyStore(self.redis).add("benchmark", weight=weight)
        return Connection(self.stack.url, headers={"Authorization": f"Bearer {key}"})

    def submit(self, owner: Connection, items: int, priority: Lane | None = None) -> str:
        """Submit a job of URLs; gives its id."""
        target = f"/jobs?priority={priority}" if priority else "/jobs"
        headers = {"Content-Type": "application/x-ndjson"}
        urls = islice(cycle(self.urls), items)
        rows = (f'{{"id":"{at}","url":"{url}"}}\n'.encode() for at, url in enumerate(urls))
        return str(owner.send("POST", target, body=rows, headers=headers)["id"])


def fairness(run: BenchmarkRun) -> Iterator[Figure]:
    """Measure each promise on a Piqueue of its own."""
    for measure in (_one_picture, _two_owners, _weights, _lanes):
        with _service(run) as service:
            yield from measure(run, service)
    yield from _many_open_jobs(run)


@contextmanager
def _service(run: BenchmarkRun, workers: int = 1) -> Iterator[Service]:
    with (
        run.image_server() as urls,
        Stack(run.new_folder("stack"), workers=workers, env=ENV | _ENGINE) as stack,
        connect(stack.redis_url) as redis,
    ):
        yield Service(stack, redis, urls)


def _one_picture(run: BenchmarkRun, service: Service) -> Iterator[Figure]:
    """One picture of B: on an idle system, after deleted jobs of A, and beside a flood of A."""
    a, b, payload = service.owner(), service.owner(), make_picture(0)
    count = max(20, run.scale.requests // 5)

    def latency_s() -> float:
        fields = picture_field("files", payload)
        time.sleep(_PAUSE_S)
        job = b.send("POST", "/jobs", fields=fields, headers={"Prefer": "wait=30"})
        assert job["counts"]["succeeded"] == 1
        return b.last_s

    for _ in range(5):
        latency_s()
    idle_s = sorted(latency_s() for _ in range(count))
    bulk = service.submit(a, 2000)
    for _ in range(150):
        a.send("DELETE", f"/jobs/{service.submit(a, _SMALL_ITEMS)}")
    a.send("DELETE", f"/jobs/{bulk}")
    time.sleep(1)
    after_s = latency_s()
    median = percentile(idle_s, 0.5)
    yield Figure(
        "the next picture after 150 deleted jobs / idle",
        "x",
        after_s / median,
        after_s / idle_s[-1],
        after_s / idle_s[0],
        "<=",
        2.0,
        f"{after_s * 1000:.0f} against {median * 1000:.0f} ms",
    )
    service.submit(a, run.scale.rows)
    for _ in range(_SMALL_JOBS):
        service.submit(a, _SMALL_ITEMS)
    time.sleep(15)  # until the rate is that of the flood
    busy_s = sorted(latency_s() for _ in range(count))
    chunk_s = _SLOTS / Load(service.redis).rate().chunks
    allowed_s = 3 * percentile(idle_s, 0.95) + chunk_s
    yield Figure(
        "one picture beside a flood, 95th percentile / (3 x idle + one chunk)",
        "x",
        percentile(busy_s, 0.95) / allowed_s,
        busy_s[0] / allowed_s,
        busy_s[-1] / allowed_s,
        "<=",
        1.0,
        f"{_SMALL_JOBS} small jobs and {run.scale.rows} URLs wait; {busy_s[-1] * 1000:.0f} ms at "
        f"most, a chunk takes {chunk_s * 1000:.0f} ms",
    )


def _two_owners(run: BenchmarkRun, service: Service) -> Iterator[Figure]:
    """The URLs of B alone, and beside ten bulk jobs of A."""
    a, b, count = service.owner(), service.owner(), run.scale.pictures

    def duration_s() -> float:
        started = time.monotonic()
        job_id = service.submit(b, count, priority=Lane.BULK)
        while not b.get(f"/jobs/{job_id}?wait=20&results=false")["done"]:
            pass
        return time.monotonic() - started

    alone_s = duration_s()
    for _ in range(10):
        service.submit(a, count, priority=Lane.BULK)
    beside_s = duration_s()
    note = f"{count} URLs, {beside_s:.1f} against {alone_s:.1f} s"
    name = "a bulk job beside ten of another owner / alone"
    yield Figure.of(name, "x", [beside_s / alone_s], ("<=", 2.2), note)


def _weights(run: BenchmarkRun, service: Service) -> Iterator[Figure]:
    """Three owners of weight 1, 1 and 2."""
    weights = (1, 1, 2)
    owners = [service.owner(weight) for weight in weights]
    jobs = [service.submit(owner, 10 * run.scale.pictures, priority=Lane.BULK) for owner in owners]

    def finished() -> list[int]:
        return [
            owner.get(f"/jobs/{job}")["counts"]["succeeded"]
            for owner, job in zip(owners, jobs, strict=True)
        ]

    counts = _counts_of(finished, run.scale.seconds)
    parts = [count / sum(counts) for count in counts]
    worst = max(
        abs(part / (weight / sum(weights)) - 1) for part, weight in zip(parts, weights, strict=True)
    )
    note = "shares of " + ", ".join(f"{100 * part:.1f} %" for part in parts)
    yield Figure.of("owners of weight 1, 1, 2: error of a share", "", [worst], ("<=", 0.05), note)


def _lanes(run: BenchmarkRun, service: Service) -> Iterator[Figure]:
    """A bulk job beside small jobs without end."""
    a, b, over = service.owner(), service.owner(), threading.Event()
    bulk = service.submit(a, 10 * run.scale.pictures, priority=Lane.BULK)
    small: list[str] = []

    def flood() -> None:
        while not over.is_set():
            if Load(service.redis).backlog() < 12 * run.scale.pictures:
                small.append(service.submit(b, _SMALL_ITEMS))

    def finished() -> list[int]:
        of_bulk = a.get(f"/jobs/{bulk}")["counts"]["succeeded"]
        submitted = 10 * run.scale.pictures + _SMALL_ITEMS * len(small)
        return [of_bulk, submitted - Load(service.redis).backlog() - of_bulk]

    flooding = threading.Thread(target=flood)
    flooding.start()
    try:
        time.sleep(3)
        of_bulk, of_small = _counts_of(finished, 3 * run.scale.seconds)
    finally:
        over.set()
        flooding.join()
    name = "share of bulk beside an endless flood of small jobs"
    total = of_bulk + of_small
    # A chunk ends a little before or after the time.
    share = (of_bulk + _CHUNK_ITEMS) / total
    note = f"{of_bulk} of {total} items, and a chunk that may be about to end"
    yield Figure.of(name, "", [share], (">=", _BULK_SHARE), note)


def _counts_of(finished: Callable[[], list[int]], seconds: float) -> list[int]:
    """What finishes within some time."""
    before = finished()
    time.sleep(seconds)
    return [after - at for after, at in zip(finished(), before, strict=True)]


def _many_open_jobs(run: BenchmarkRun) -> Iterator[Figure]:
    """Claims beside few and many open jobs; then commands and heartbeats while nothing is due."""
    many = run.scale.scored_rows
    # Both servers share a processor, and this process has another: to wake one that is idle takes a
    # good part of the time of a claim.
    processors = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(processors)})
    servers = [EmbeddedRedis(run.new_folder("redis")) for _ in range(2)]
    try:
        stores = []
        for server, count in zip(servers, (many, 100), strict=True):
            server.start()
            _keep_on(server, max(processors))
            stores.append(JobStore(connect(server.url)))
            _submit_small(stores[-1], count)
        for server in servers:
            _wait_for_rewrite(server.url)

        warm = [_MODEL.ref.key]

        def claim_s(store: JobStore) -> float:
            started = time.perf_counter()
            (claim,) = store.claim_next(60, _BULK_SHARE, warm)
            duration_s = time.perf_counter() - started
            store.commit(claim, [ItemResult(scores=(0.5,))])
            _submit_small(store, 1)
            return duration_s

        pairs = alternate(lambda: claim_s(stores[0]), lambda: claim_s(stores[1]), 1000)
    finally:
        os.sched_setaffinity(0, processors)
        for server in servers:
            server.stop()
    note = (
        f"{many} against 100 open jobs, {percentile([few for _, few in pairs], 0.5) * 1e6:.0f} us"
    )
    yield Figure.of("a claim beside many open jobs / few", "x", ratios(pairs), ("<=", 1.2), note)
    with _service(run, workers=2) as service:
        store = JobStore(service.redis)
        _submit_small(store, many, hold=True)
        before = _commands(service.redis)
        time.sleep(run.scale.seconds)
        rate = (_commands(service.redis) - before) / run.scale.seconds
        ready = service.owner().get("/readyz")
    assert ready["workers"] == 2
    yield Figure.of(
        f"commands of two workers beside {many} open jobs, nothing due", "/s", [rate], ("<=", 50)
    )


def _keep_on(server: EmbeddedRedis, processor: int) -> None:
    """Keep every thread of a server on one processor; its helper threads are there already."""
    for thread in Path(f"/proc/{server.process.pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), {processor})


def _submit_small(store: JobStore, count: int, *, hold: bool = False) -> None:
    """Submit jobs of one picture; with `hold`, claim each at once for longer than a run takes."""
    for _ in range(count):
        job = NewJob(new_job_id(), "benchmark", _MODEL, ttl_s=86400)
        store.put_chunk(job.id, 0, [ItemSpec("0", "http://127.0.0.1:9/")])
        store.submit(job, Shape(Lane.INTERACTIVE, 1, 1))
        if hold:
            store.claim_next(86400, _BULK_SHARE)


def _wait_for_rewrite(url: str) -> None:
    """Wait until a server does not rewrite its file, because that copies each page that changes."""
    with connect(url) as redis:
        while True:
            state: Any = redis.info("persistence")
            if not (state["aof_rewrite_in_progress"] or state["aof_rewrite_scheduled"]):
                return
            time.sleep(0.1)


def _commands(redis: Redis) -> int:
    stats: Any = redis.info("stats")
    return int(stats["total_commands_processed"])
