"""Real Redis servers and Sentinels for tests, as Debian packages them, on ports of 127.0.0.1."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import RedisError
from redis.retry import Retry

from scripts.local.stack import listenable_port
from scripts.local.supervised_process import SupervisedProcess
from tests.browser import unavailable

START_DEADLINE_S = 30.0


def program(name: str) -> str:
    """Find `redis-server` or `redis-sentinel`."""
    path = shutil.which(name)
    if path is None:
        unavailable(
            "Redis with TLS, limited users and Sentinel: apt-get install redis-server "
            "redis-sentinel"
        )
    return path


class RedisServer:
    """One server, or with `sentinel` one Sentinel; options are those of redis.conf."""

    def __init__(
        self, folder: Path, options: Mapping[str, str] | None = None, *, sentinel: bool = False
    ) -> None:
        folder.mkdir(parents=True)
        self.port = self.free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        given = {"port": str(self.port), "bind": "127.0.0.1", "dir": str(folder), **(options or {})}
        if not sentinel:
            given = {"appendonly": "yes", "save": '""', **given}
        config = folder / "redis.conf"
        config.write_text("".join(f"{name} {value}\n" for name, value in given.items()))
        name = "redis-sentinel" if sentinel else "redis-server"
        self.process = SupervisedProcess([program(name), str(config)], folder / "redis.log")

    @staticmethod
    def free_port() -> int:
        """Give a port of 127.0.0.1 that nothing listens on."""
        return listenable_port("127.0.0.1", 0)

    def start(self, *, login: Mapping[str, str] | None = None) -> Self:
        """Start it and wait until it answers."""
        self.process.start()
        with self.client(**(login or {})) as client:
            self.process.wait_until(lambda: _answers(client), START_DEADLINE_S, "Redis")
        return self

    def client(self, **options: str) -> Redis:
        """Give a client that does not retry."""
        return Redis(port=self.port, retry=Retry(NoBackoff(), 0), **options)  # type: ignore[arg-type]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.process.stop(grace_s=0)


def _answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False
