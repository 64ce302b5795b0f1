"""The latency of one picture in the whole service, compared with bare decoding and inference."""

import time
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

from redis import Redis

from model.images.decode import decode
from model.predictor import load_predictor
from scripts.benchmarks.support.benchmark_run import BenchmarkRun
from scripts.benchmarks.support.connection import Connection, picture_field
from scripts.benchmarks.support.figures import Figure, alternate, percentile
from scripts.benchmarks.support.pictures import read_pictures
from worker.jobs.ledger.connection import connect
from worker.jobs.settings import ARTIFACTS_PATH

WARM_UP = 20
PAUSE_S = 0.02


def one_picture(run: BenchmarkRun) -> Iterator[Figure]:
    """Post one picture and wait for its score, alternating with the same work in this process."""
    predictor = load_predictor(ARTIFACTS_PATH / "scenes" / "5", "litert")
    predictor.warm_up()
    size = predictor.card.input_size
    payloads = read_pictures(run.pictures)
    ours, theirs = cycle(payloads), cycle(payloads)

    with run.stack() as stack, Connection(stack.url) as connection:

        def service() -> float:
            fields = picture_field("files", next(ours))
            time.sleep(PAUSE_S)
            job = connection.send("POST", "/jobs", fields=fields, headers={"Prefer": "wait=20"})
            assert job["counts"]["succeeded"] == 1
            return connection.last_s

        def bare() -> float:
            payload = next(theirs)
            time.sleep(PAUSE_S)
            started = time.perf_counter()
            predictor.predict([decode(payload, size).pixels])
            return time.perf_counter() - started

        alternate(service, bare, WARM_UP)
        pairs = alternate(service, bare, run.scale.requests)
        with connect(stack.redis_url) as redis:
            reads, commands = _redis_work(redis, service, run.scale.requests)

    yield Figure.of("one picture, round trips to Redis", "", [reads], ("<=", 6.5))
    yield Figure.of("one picture, commands to Redis", "", [commands], ("<=", 60))

    service_s, bare_s = zip(*pairs, strict=True)
    median_s = percentile(bare_s, 0.5)
    for name, share, bound in (("median", 0.5, 2.0), ("95th percentile", 0.95, 3.0)):
        ours_s, theirs_s = percentile(service_s, share), percentile(bare_s, share)
        yield Figure(
            f"one picture, {name} / bare",
            "x",
            ours_s / theirs_s,
            min(service_s) / median_s,
            max(service_s) / median_s,
            "<=",
            bound,
            f"{ours_s * 1000:.1f} against {theirs_s * 1000:.1f} ms",
        )


def _redis_work(redis: Redis, request: Callable[[], object], count: int) -> list[float]:
    """How often Redis reads from its clients for a request, and how many commands it runs for it.

    What it does while idle is left out.
    """

    def work() -> list[int]:
        stats: Any = redis.info("stats")
        return [int(stats["total_reads_processed"]), int(stats["total_commands_processed"])]

    before, started = work(), time.monotonic()
    for _ in range(count):
        request()
    after, duration_s = work(), time.monotonic() - started
    time.sleep(duration_s)
    idle = work()
    return [
        ((end - start) - (later - end)) / count
        for start, end, later in zip(before, after, idle, strict=True)
    ]
