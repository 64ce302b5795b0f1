"""The health check of a worker's container, as the container runs it."""

import os
import socket
import subprocess
import sys

from redis import Redis

from scripts.local.stack import ROOT, Stack
from worker.jobs.ledger.workers import WORKER_SILENT_S, Workers


def check_health(redis_url: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "worker.health"],
        cwd=ROOT,
        env={**os.environ, "PIQUEUE_REDIS_URL": redis_url},
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_a_worker_of_this_host_with_a_heartbeat_is_healthy(stack: Stack) -> None:
    checked = check_health(stack.redis_url)
    assert (checked.returncode, checked.stderr) == (0, "")


def test_workers_of_other_hosts_do_not_count(redis_url: str, redis_client: Redis) -> None:
    Workers(redis_client).heartbeat(f"{socket.gethostname()}-2-17-a1b2c3", 1)
    checked = check_health(redis_url)
    assert checked.returncode == 1
    assert "no worker on" in checked.stderr


def test_a_worker_that_has_been_silent_for_long_is_not_healthy(
    redis_url: str, redis_client: Redis
) -> None:
    worker_id = f"{socket.gethostname()}-17-a1b2c3"
    Workers(redis_client).heartbeat(worker_id, 1)
    assert check_health(redis_url).returncode == 0
    # As if it were stopped, or C code held its GIL, since then.
    redis_client.zincrby("piqueue:workers", -1000 * WORKER_SILENT_S, worker_id)
    assert check_health(redis_url).returncode == 1


def test_without_redis_no_worker_is_healthy() -> None:
    checked = check_health("redis://127.0.0.1:1/0")
    assert checked.returncode == 1
    assert "Redis does not answer" in checked.stderr
