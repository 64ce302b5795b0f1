"""Redis servers and Sentinels as Debian packages them, on ports of 127.0.0.1."""

import os
import shutil
import signal
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any, Self

from redis import Redis
from redis.backoff import NoBackoff
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError
from redis.retry import Retry

from scripts.local.embedded_redis import answers
from scripts.local.stack import Stack, listenable_port
from scripts.local.supervised_process import StartFailed, SupervisedProcess

PASSWORD, SENTINEL_PASSWORD = "primary-pass", "sentinel-pass"
DOWN_AFTER_MS = 1000
_DEADLINE_S = 60.0
# A Sentinel whose machine stood still for longer does nothing for half a minute.
_STOOD_STILL_MS = 15_000


class ProgramMissing(StartFailed):
    """This machine does not have a program; the text says how to install it."""


def program(name: str) -> str:
    """Find `redis-server` or `redis-sentinel`.

    Raises:
        ProgramMissing: it is not installed.
    """
    path = shutil.which(name)
    if path is None:
        raise ProgramMissing(f"no {name}: apt-get install redis-server redis-sentinel")
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
            self.process.wait_until(lambda: answers(client), _DEADLINE_S, "Redis")
        return self

    def client(self, **options: str) -> Redis:
        """Give a client that does not retry."""
        return Redis(port=self.port, retry=Retry(NoBackoff(), 0), **options)  # type: ignore[arg-type]

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.process.stop(grace_s=0)


class RedisWithSentinels:
    """A primary, a replica and three Sentinels that watch them.

    A primary that does not answer for `down_after_ms` is replaced.
    """

    def __init__(self, folder: Path, down_after_ms: int = DOWN_AFTER_MS) -> None:
        common = {"requirepass": PASSWORD, "masterauth": PASSWORD}
        self.primary = RedisServer(folder / "one", common)
        of = {"replicaof": f"127.0.0.1 {self.primary.port}"}
        self.replica = RedisServer(folder / "two", {**common, **of})
        watched = {
            "requirepass": SENTINEL_PASSWORD,
            "sentinel monitor main": f"127.0.0.1 {self.primary.port} 2",
            "sentinel auth-pass main": PASSWORD,
            "sentinel down-after-milliseconds main": str(down_after_ms),
            "sentinel failover-timeout main": "10000",
        }
        self._sentinels = [
            RedisServer(folder / f"sentinel-{number}", watched, sentinel=True)
            for number in range(3)
        ]
        nodes = ",".join(f"127.0.0.1:{one.port}" for one in self._sentinels)
        self.url = (
            f"redis+sentinel://:{PASSWORD}@{nodes}/main/0?sentinel_password={SENTINEL_PASSWORD}"
        )
        self._running = ExitStack()

    def start(self) -> None:
        """Start all servers, and wait until the replica has all and the Sentinels know them."""
        for server in (self.primary, self.replica):
            self._start(server, PASSWORD)
        self._wait_for_replica()
        for sentinel in self._sentinels:
            self._start(sentinel, SENTINEL_PASSWORD)
        for sentinel in self._sentinels:
            with sentinel.client(password=SENTINEL_PASSWORD) as client:
                known = partial(_knows_all, client)
                sentinel.process.wait_until(known, _DEADLINE_S, "the Sentinel")
                with suppress(ResponseError):  # Redis before 7.0
                    client.execute_command(
                        "SENTINEL", "DEBUG", "tilt-trigger", str(_STOOD_STILL_MS)
                    )

    def stop(self) -> None:
        """Kill all servers."""
        self._running.close()

    def kill_primary(self) -> None:
        """Kill the primary; its replica is the next one."""
        assert self.primary.process.pid
        os.kill(self.primary.process.pid, signal.SIGKILL)
        self.primary.process.wait()
        self.primary, self.replica = self.replica, self.primary

    def rejoin(self) -> None:
        """Start the killed server once there is a new primary, and wait until it is a replica."""
        with self.primary.client(password=PASSWORD) as client:
            promoted = partial(_is_primary, client)
            self.primary.process.wait_until(promoted, _DEADLINE_S, "the new primary")
        self.replica.start(login={"password": PASSWORD})
        self._wait_for_replica()

    def _wait_for_replica(self) -> None:
        with self.replica.client(password=PASSWORD) as client:
            follows = partial(_is_replica, client)
            self.replica.process.wait_until(follows, _DEADLINE_S, "the replica")

    def _start(self, server: RedisServer, password: str) -> None:
        self._running.callback(server.process.stop, grace_s=0)
        server.start(login={"password": password})


class SentinelStack(Stack):
    """A Piqueue with such a Redis."""

    def __init__(self, folder: Path, down_after_ms: int = DOWN_AFTER_MS, **options: Any) -> None:
        self.service = RedisWithSentinels(folder / "sentinel", down_after_ms)
        super().__init__(folder, redis_url=self.service.url, **options)

    def start(self) -> None:
        """Start Redis and the Sentinels, and everything else as a stack does."""
        try:
            self.service.start()
        except BaseException:
            self.service.stop()
            raise
        super().start()

    def stop(self) -> None:
        """Stop everything as a stack does, then Redis and the Sentinels."""
        try:
            super().stop()
        finally:
            self.service.stop()


def _knows_all(sentinel: Any) -> bool:
    """Whether a Sentinel knows the replica and the other Sentinels."""
    [state] = sentinel.sentinel_masters().values()
    return (state["num-slaves"], state["num-other-sentinels"]) == (1, 2)


def _is_primary(redis: Redis) -> bool:
    return bool(_role(redis)[0] == b"master")


def _is_replica(redis: Redis) -> bool:
    """Whether it follows a primary and has its data."""
    role = _role(redis)
    return bool(role[0] == b"slave" and role[3] == b"connected")


def _role(redis: Any) -> Any:
    try:
        return redis.role()
    except RedisConnectionError:  # it resets connections when its role changes
        return [None]
