"""What tests share: a real Redis for the session, emptied for each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from redis import Redis

from scripts.embedded_redis import EmbeddedRedis


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run one Redis for all tests of the session."""
    with EmbeddedRedis(Path(tmp_path_factory.mktemp("redis"))) as server:
        yield server.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[Redis]:
    """Give a client of an empty Redis."""
    with Redis.from_url(redis_url) as client:
        client.flushdb()
        yield client
