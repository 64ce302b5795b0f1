"""Shared fixtures: a real Redis, emptied for each test, and one complete Piqueue per session."""

import os
from collections.abc import Iterator

import httpx2
import pytest
from redis import Redis

from scripts.local.embedded_redis import EmbeddedRedis
from scripts.local.stack import Stack
from tests.browser import NOT_TESTED, browser  # noqa: F401 - a fixture
from tests.s3 import s3_server  # noqa: F401 - a fixture

# TensorFlow reads this when it is loaded: a model trained in this process must be equal, bit for
# bit, to one trained in a process of its own, on processors where oneDNN is off by default too.
os.environ["TF_ENABLE_ONEDNN_OPTS"] = "1"
# Programs must work with buffered output too, as it is on a user's machine.
os.environ.pop("PYTHONUNBUFFERED", None)

STACK_ENV = {
    # The servers of the tests; the rest of loopback stays refused.
    "PIQUEUE_FETCH_ALLOW_NETWORKS": "127.0.0.1/32",
    "PIQUEUE_MAX_FILES": "120",
    "PIQUEUE_MAX_ITEM_BYTES": "1000000",
    "PIQUEUE_MAX_REQUEST_BYTES": "20000000",
    "PIQUEUE_MAX_PIXELS": "4000000",
    # Longer than this machine may stall, which also holds up the servers of the tests.
    "PIQUEUE_FETCH_TIMEOUT_S": "10",
    # The golden scores are those of this variant.
    "PIQUEUE_MODEL_VARIANT": "float",
    "PIQUEUE_WEBHOOK_RETRY_S": "0.2,0.2,0.2",
    "PIQUEUE_WEBHOOK_TIMEOUT_S": "6",
}


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedRedis]:
    """Run one Redis for all tests of the session."""
    with EmbeddedRedis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_url(redis_server: EmbeddedRedis) -> str:
    """Return the URL of an empty Redis: an API key of another test would lock this one out."""
    with Redis.from_url(redis_server.url) as client:
        client.flushdb()
    return redis_server.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[Redis]:
    """Give a client of that Redis."""
    with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Run Redis, one worker and the API for all tests of the session."""
    with Stack(tmp_path_factory.mktemp("stack"), env=STACK_ENV) as running:
        yield running


@pytest.fixture
def client(stack: Stack) -> Iterator[httpx2.Client]:
    """Give an HTTP client of the running API."""
    with httpx2.Client(base_url=stack.url, timeout=60) as client:
        yield client


# What these tests show must hold every time: there a failure by chance is a fault of Piqueue.
NEVER_AGAIN = ("tests/faults/", "tests/worker/jobs/")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let a test that fails in CI, where processes may be slow, run once more."""
    if "CI" in os.environ:
        for item in items:
            if not item.nodeid.startswith(NEVER_AGAIN):
                item.add_marker(pytest.mark.flaky(reruns=1))


def pytest_unconfigure(config: pytest.Config) -> None:
    """Print last which tests ran twice, what this machine could not test, and how to change it."""
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    if reporter is None:  # a worker of pytest-xdist
        return
    for report in reporter.stats.get("rerun", []):
        reporter.section(f"FAILED, and ran once more: {report.nodeid}", yellow=True)
        reporter.write_line(report.longreprtext)
    reasons = {report.longrepr[2] for report in reporter.stats.get("skipped", [])}
    for reason in sorted(reasons):
        if NOT_TESTED in reason:
            reporter.write_line(reason.removeprefix("Skipped: "), yellow=True)
