"""Redis and the API without a worker, so that a benchmark decides itself what becomes of a job."""

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2

from scripts.benchmarks.programs import ROOT, START_DEADLINE_S
from scripts.child import Child, StartFailed
from scripts.embedded_redis import EmbeddedRedis
from scripts.stack import listenable_port


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
        api = Child(
            [sys.executable, "-m", "api", "--host", "127.0.0.1", "--port", str(port)],
            folder / "api.log",
            {"PIQUEUE_REDIS_URL": redis.url},
            ROOT,
        )
        api.start()
        try:
            _wait_until_up(api, f"http://127.0.0.1:{port}")
            yield Workerless(f"http://127.0.0.1:{port}", redis.url)
        finally:
            api.stop(grace_s=5)


def _wait_until_up(api: Child, url: str) -> None:
    deadline = time.monotonic() + START_DEADLINE_S
    while True:
        try:
            httpx2.get(f"{url}/healthz", timeout=5, trust_env=False)
            return
        except httpx2.TransportError:
            if api.pid is None or time.monotonic() > deadline:
                raise StartFailed(f"the API does not come up\n{api.log_tail()}") from None
        time.sleep(0.02)
