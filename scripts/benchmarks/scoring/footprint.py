"""The time a worker needs to start, and the memory of the processes."""

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from scripts.benchmarks.scoring.throughput import score_urls
from scripts.benchmarks.support.benchmark_run import START_DEADLINE_S, BenchmarkRun, resident_mb
from scripts.benchmarks.support.figures import Figure
from scripts.local.embedded_redis import EmbeddedRedis
from scripts.local.stack import ROOT
from scripts.local.supervised_process import SupervisedProcess
from worker.jobs.ledger.connection import connect
from worker.jobs.ledger.workers import Workers

_HEAVY = ("tensorflow", "keras", "numpy", "PIL")
_COUNT_HEAVY = f"import sys, api.main; print(sum(name in sys.modules for name in {_HEAVY}))"


def footprint(run: BenchmarkRun) -> Iterator[Figure]:
    """Measure starts on a Redis of their own, then memory after a job."""
    with EmbeddedRedis(run.new_folder("redis")) as redis:
        folder = run.new_folder("worker")
        starts = [_start_s(folder, redis.url) for _ in range(run.scale.starts)]
    yield Figure.of("worker start", "s", starts, ("<=", 2), "process start to heartbeat")

    with run.image_server() as urls, run.stack() as stack:
        score_urls(stack.url, urls)
        (worker_pid,) = stack.workers
        assert stack.api_pid
        after = f"after {len(urls)} pictures"
        yield Figure.of("worker memory", "MB", [resident_mb(worker_pid)], ("<=", 200), after)
        yield Figure.of("API memory", "MB", [resident_mb(stack.api_pid)], ("<=", 120), after)

    counted = subprocess.check_output([sys.executable, "-c", _COUNT_HEAVY], cwd=ROOT, timeout=600)
    of = f"of {', '.join(_HEAVY)}"
    yield Figure.of("heavy imports of the API", "", [float(counted)], ("<=", 0), of)


def _start_s(folder: Path, redis_url: str) -> float:
    environment = {"PIQUEUE_REDIS_URL": redis_url}
    worker = SupervisedProcess([sys.executable, "-m", "worker"], folder / "log", environment, ROOT)
    workers = Workers(connect(redis_url))
    before = workers.live().keys()
    started = time.monotonic()
    worker.start()
    try:
        worker.wait_until(lambda: workers.live().keys() - before, START_DEADLINE_S, "the worker")
        return time.monotonic() - started
    finally:
        worker.stop(grace_s=10)
