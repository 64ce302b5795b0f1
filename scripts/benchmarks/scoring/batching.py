"""How well the pictures of many jobs fill the batches of a GPU, which is simulated."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from scripts.benchmarks.support.benchmark_run import ENV, BenchmarkRun
from scripts.benchmarks.support.connection import Connection, picture_field
from scripts.benchmarks.support.figures import Figure
from scripts.benchmarks.support.pictures import read_pictures
from scripts.local.stack import Stack

BATCH_SIZE, CLIENTS = 64, 64
_ENGINE = {
    "PYTHONPATH": str(Path(__file__).parent / "simulated_gpu"),
    "PIQUEUE_BATCH_SIZE": str(BATCH_SIZE),
    "PIQUEUE_THREADS": "62",
}


def batch_s(count: int) -> float:
    """How long the simulated engine takes for a batch of `count` pictures, in seconds."""
    return 0.05 + 0.012 * count


def batching(run: BenchmarkRun) -> Iterator[Figure]:
    """Compare with the same engine in full batches without a pause: URLs, then many clients."""
    best = BATCH_SIZE / batch_s(BATCH_SIZE)

    def figure(name: str, count: int, duration_s: float) -> Figure:
        rate = count / duration_s
        note = (
            f"{rate:.1f} against {best:.1f} pictures/s; a batch takes {batch_s(BATCH_SIZE):.2f} s"
        )
        return Figure.of(name, "x", [rate / best], (">=", 0.9), note)

    with (
        run.image_server() as urls,
        Stack(run.new_folder("stack"), env=ENV | _ENGINE) as stack,
        Connection(stack.url) as connection,
    ):
        items = [{"url": url} for url in urls]
        started = time.monotonic()
        job_id = connection.post("/jobs", {"items": items})["id"]
        while not connection.get(f"/jobs/{job_id}?wait=20&results=false")["done"]:
            pass
        took_s = time.monotonic() - started
        yield figure("URLs, chunks of 32 / full batches", len(items), took_s)

        payloads = read_pictures(run.pictures)

        def client(number: int) -> int:
            with Connection(stack.url) as mine:
                sent = payloads[number::CLIENTS]
                for payload in sent:
                    fields = picture_field("files", payload)
                    headers = {"Prefer": "wait=60"}
                    job = mine.send("POST", "/jobs", fields=fields, headers=headers)
                    assert job["counts"]["succeeded"] == 1
            return len(sent)

        started = time.monotonic()
        with ThreadPoolExecutor(CLIENTS) as clients:
            count = sum(clients.map(client, range(CLIENTS)))
        took_s = time.monotonic() - started
        yield figure(f"{CLIENTS} clients of one picture / full batches", count, took_s)
