"""A table of a million rows is taken in: how long that takes, and what others feel of it."""

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from redis import Redis

from scripts.benchmarks.alternating import percentile
from scripts.benchmarks.connection import Connection
from scripts.benchmarks.figures import Figure
from scripts.benchmarks.made_up import CSV_TYPE, write_table
from scripts.benchmarks.programs import resident_mb
from scripts.benchmarks.workbench import Workbench
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.layout import job_key

PAUSE_S = 0.05


def bulk(bench: Workbench) -> Iterator[Figure]:
    """Post the table to a running Piqueue while others use it."""
    rows = bench.scale.rows
    table = bench.new_folder("bulk") / "table.csv"
    write_table(table, rows)
    with bench.image_server() as urls, bench.stack() as stack, Connection(stack.url) as connection:
        small = connection.post("/jobs", {"urls": urls[:1]})
        assert stack.api_pid
        before_mb = resident_mb(stack.api_pid)
        with ThreadPoolExecutor(1) as pool:
            others = _Others(stack.url, urls[0], small["id"])
            big = pool.submit(_post_table, stack.url, table)
            felt = others.until(big)
        job, taken_s = big.result()
        grown_mb = resident_mb(stack.api_pid, "VmHWM") - before_mb
        per_item = _bytes_of(connect(stack.redis_url), job["id"]) / rows
        connection.send("DELETE", f"/jobs/{job['id']}")

    on = f"{rows} rows, {table.stat().st_size / 1e6:.0f} MB"
    yield Figure.of("CSV taken in", "s", [taken_s], ("<=", 60), on)
    for name, latencies in felt.items():
        p95_ms = percentile(latencies, 0.95) * 1000
        yield Figure(
            f"{name} meanwhile, 95th percentile",
            "ms",
            p95_ms,
            min(latencies) * 1000,
            max(latencies) * 1000,
            "<=",
            250,
            f"{len(latencies)} requests",
        )
    yield Figure.of("API memory grows meanwhile by", "MB", [grown_mb], ("<=", 100), on)
    yield Figure.of("Redis memory before scoring", "bytes/item", [per_item], ("<=", 200), on)


class _Others:
    """Other clients, who notice how long each of their requests takes."""

    def __init__(self, url: str, picture_url: str, job_id: str) -> None:
        self._url = url
        self._requests: dict[str, Callable[[Connection], Any]] = {
            "GET /healthz": lambda connection: connection.get("/healthz"),
            "GET /jobs/{id}": lambda connection: connection.get(f"/jobs/{job_id}"),
            "POST /jobs": lambda connection: connection.post("/jobs", {"urls": [picture_url]}),
        }

    def until(self, ends: Future[Any]) -> dict[str, list[float]]:
        """Go on until `ends` is done, each kind of request from a thread of its own."""
        felt = defaultdict[str, list[float]](list)

        def ask(name: str) -> None:
            with Connection(self._url) as connection:
                while not ends.done():
                    self._requests[name](connection)
                    felt[name].append(connection.last_s)
                    time.sleep(PAUSE_S)

        threads = [threading.Thread(target=ask, args=(name,)) for name in self._requests]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return felt


def _post_table(url: str, table: Path) -> tuple[Any, float]:
    with Connection(url, timeout_s=600) as connection, table.open("rb") as body:
        job = connection.send("POST", "/jobs?id_column=sku", body, CSV_TYPE)
        return job, connection.last_s


def _bytes_of(redis: Redis, job_id: str) -> int:
    """Count what the keys of a job take in Redis."""
    keys = redis.scan_iter(job_key(job_id, "*"), count=1000)
    return sum(int(redis.memory_usage(key, samples=0) or 0) for key in keys)
