"""The duration of the upload of a table of a million rows, and what other clients notice of it."""

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from scripts.benchmarks.support.benchmark_run import BenchmarkRun, resident_mb
from scripts.benchmarks.support.connection import Connection
from scripts.benchmarks.support.figures import Figure, percentile
from scripts.benchmarks.support.synthetic_jobs import submit_table, write_table
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.layout import job_key

PAUSE_S = 0.05
BOUND_MS = 250


def bulk_upload(run: BenchmarkRun) -> Iterator[Figure]:
    """Post the table to a running Piqueue while other clients use it."""
    rows = run.scale.rows
    table = run.new_folder("bulk-upload") / "table.csv"
    write_table(table, rows)
    with run.image_server() as urls, run.stack() as stack, Connection(stack.url) as connection:
        small = connection.post("/jobs", {"urls": urls[:1]})
        assert stack.api_pid
        before_mb = resident_mb(stack.api_pid)
        with ThreadPoolExecutor(1) as pool:
            upload = pool.submit(_upload, stack.url, table)
            latencies = _latencies_until(upload, stack.url, urls[0], small["id"])
        job, taken_s = upload.result()
        grown_mb = resident_mb(stack.api_pid, "VmHWM") - before_mb
        redis = connect(stack.redis_url)
        keys = redis.scan_iter(job_key(job["id"], "*"), count=1000)
        per_item = sum(int(redis.memory_usage(key, samples=0) or 0) for key in keys) / rows
        connection.send("DELETE", f"/jobs/{job['id']}")

    on = f"{rows} rows, {table.stat().st_size / 1e6:.0f} MB"
    yield Figure.of("CSV accepted", "s", [taken_s], ("<=", 60), on)
    for request, found_s in latencies.items():
        found_ms = [seconds * 1000 for seconds in found_s]
        p95_ms, low_ms, high_ms = percentile(found_ms, 0.95), min(found_ms), max(found_ms)
        name, note = f"{request} meanwhile, 95th percentile", f"{len(found_ms)} requests"
        yield Figure(name, "ms", p95_ms, low_ms, high_ms, "<=", BOUND_MS, note)
    yield Figure.of("API memory grows meanwhile by", "MB", [grown_mb], ("<=", 100), on)
    yield Figure.of("Redis memory before scoring", "bytes/item", [per_item], ("<=", 200), on)


def _latencies_until(
    end: Future[Any], url: str, picture_url: str, job_id: str
) -> dict[str, list[float]]:
    """Send each kind of request repeatedly from a thread of its own; gives their durations."""
    requests: dict[str, Callable[[Connection], Any]] = {
        "GET /healthz": lambda connection: connection.get("/healthz"),
        "GET /jobs/{id}": lambda connection: connection.get(f"/jobs/{job_id}"),
        "POST /jobs": lambda connection: connection.post("/jobs", {"urls": [picture_url]}),
    }
    latencies = defaultdict[str, list[float]](list)

    def send(name: str) -> None:
        with Connection(url) as connection:
            while not end.done():
                requests[name](connection)
                latencies[name].append(connection.last_s)
                time.sleep(PAUSE_S)

    with ThreadPoolExecutor(len(requests)) as pool:
        list(pool.map(send, requests))
    return latencies


def _upload(url: str, table: Path) -> tuple[Any, float]:
    with Connection(url, timeout_s=600) as connection:
        return submit_table(connection, table), connection.last_s
