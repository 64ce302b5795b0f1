"""Redis and the API without a worker, so that a benchmark decides itself what becomes of a job."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from scripts.benchmarks.programs import ROOT, START_DEADLINE_S
from scripts.local.embedded_redis import EmbeddedRedis
from scripts.local.stack import listenable_port
from scripts.local.supervised_process import SupervisedProcess


@dataclass(frozen=True)
class Workerless:
    """Where the API and its Redis answer."""

    url: str
    redis_url: str


@contextmanager
def workerless(folder: Path) -> Iterator[Workerless]:
    """Run both while the block runs."""
    port = listenable_port("127.0.0.1", 0)
    with EmbeddedRedis(folder / "redis") as redis:
        api = SupervisedProcess(
            [sys.executable, "-m", "api", "--host", "127.0.0.1", "--port", str(port)],
            folder / "api.log",
            {"PIQUEUE_REDIS_URL": redis.url},
            ROOT,
        )
        api.start()
        try:
            url = f"http://127.0.0.1:{port}"
            api.wait_until(lambda: _answers(url), START_DEADLINE_S, "the API")
            yield Workerless(url, redis.url)
        finally:
            api.stop(grace_s=5)


def _answers(url: str) -> bool:
    try:
        httpx2.get(f"{url}/healthz", timeout=5, trust_env=False)
    except httpx2.TransportError:
        return False
    return True
