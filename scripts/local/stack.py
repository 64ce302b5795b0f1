"""Redis, the API and the workers on one machine: watched, started again, stopped together."""

import os
import socket
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self

from piqueue.client import Client
from scripts.local.embedded_redis import EmbeddedRedis
from scripts.local.supervised_process import StartFailed, SupervisedProcess
from scripts.local.supervisor import Supervisor

ROOT = Path(__file__).resolve().parents[2]
_READY_DEADLINE_S = 60.0
_ENDS_BEFORE_READY_COUNT = 2
_API_GRACE_S = 12.0  # longer than it gives requests under way
_WORKER_GRACE_S = 30.0  # to finish what it holds
_METRICS_PORT = "PIQUEUE_METRICS_PORT"
_FOLDERS = ("PIQUEUE_ARTIFACTS_PATH", "PIQUEUE_MODELS_CACHE_PATH", "PIQUEUE_REGISTRY_URL")


class _Program(NamedTuple):
    child: SupervisedProcess
    keeper: Supervisor


class Stack:
    """A whole Piqueue in child processes; their data and logs live in `folder`.

    Port 0 takes a free one. `env` is added to the environment of the API and the workers.
    The logs of the run before this one are kept as `*.log.1`.
    """

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        workers: int = 1,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self._folder = folder.resolve()
        self._host = host
        self._port = port
        self._worker_count = workers
        self._env = _folders_from_here(os.environ) | dict(env or {})
        self._redis = EmbeddedRedis(self._folder / "redis")
        self._redis_keeper: Supervisor | None = None
        self._api: _Program | None = None
        self._workers: list[_Program] = []

    @property
    def url(self) -> str:
        """Where the API answers on this machine, without a slash at the end."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}"

    @property
    def redis_url(self) -> str:
        """Where its Redis answers."""
        return self._redis.url

    @property
    def redis_pid(self) -> int | None:
        """Process id of the Redis server, None while it does not run."""
        return self._redis.pid

    @property
    def api_pid(self) -> int | None:
        """Process id of the API, None while it does not run."""
        return self._api.child.pid if self._api else None

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [pid for worker in self._workers if (pid := worker.child.pid) is not None]

    def start(self) -> None:
        """Start all of it and wait until the API says that it is ready.

        Raises:
            StartFailed: the port is taken, the folder is in use, or something does not come up;
                the text carries the ends of the logs.
        """
        self._port = listenable_port(self._host, self._port)
        listen = ["--host", self._host, "--port", str(self._port)]
        try:
            self._redis.start()
            self._redis_keeper = Supervisor("redis", self._redis.wait, self._redis.restart)
            self._api = self._launch("api", "-m", "api", *listen)
            for number in range(self._worker_count):
                env = self._metrics_env(number)
                self._workers.append(self._launch(f"worker-{number + 1}", "-m", "worker", env=env))
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the API, let the workers finish, then stop Redis; nothing is left running.

        Interrupted while the workers finish, it kills them.
        """
        try:
            for program in self._programs:
                program.keeper.release()
            if self._api:
                self._api.child.stop(_API_GRACE_S)
            for worker in self._workers:
                worker.child.terminate()
            deadline = time.monotonic() + _WORKER_GRACE_S
            for worker in self._workers:
                worker.child.wait(max(0.0, deadline - time.monotonic()))
        finally:
            for program in self._programs:
                program.child.stop(grace_s=0)
                program.keeper.join()
            if self._redis_keeper:
                self._redis_keeper.release()
            self._redis.stop()
            if self._redis_keeper:
                self._redis_keeper.join()
            self._redis_keeper, self._api, self._workers = None, None, []

    @contextmanager
    def redis_stopped(self) -> Iterator[None]:
        """Shut Redis down, with its data on disk, while the block runs."""
        assert self._redis_keeper, "the stack does not run"
        self._redis_keeper.release()
        self._redis.halt()
        self._redis_keeper.join()
        try:
            yield
        finally:
            self._redis.restart()
            self._redis_keeper = Supervisor("redis", self._redis.wait, self._redis.restart)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _programs(self) -> list[_Program]:
        return [self._api, *self._workers] if self._api else []

    def _metrics_env(self, number: int) -> dict[str, str]:
        """A port of its own for each worker's metrics, counted up from the one that is set."""
        port = self._env.get(_METRICS_PORT) or os.environ.get(_METRICS_PORT, "")
        counts = port.isdecimal() and int(port) > 0
        return {_METRICS_PORT: str(int(port) + number)} if counts else {}

    def _launch(self, name: str, *arguments: str, env: Mapping[str, str] | None = None) -> _Program:
        log_path = self._folder / f"{name}.log"
        if log_path.exists():
            log_path.replace(f"{log_path}.1")
        child = SupervisedProcess(
            [sys.executable, *arguments],
            log_path,
            env={**self._env, "PIQUEUE_REDIS_URL": self._redis.url, **(env or {})},
            cwd=ROOT,
        )
        child.start()
        return _Program(child, Supervisor(name, child.wait, child.start))

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_DEADLINE_S
        with Client(self.url, timeout_s=5) as client:
            while not client.ready():
                for child, keeper in self._programs:
                    if keeper.ended_count >= _ENDS_BEFORE_READY_COUNT:
                        raise StartFailed(f"{keeper.name} does not stay up\n{child.log_tail()}")
                if time.monotonic() > deadline:
                    logs = "\n".join(child.log_tail() for child, _ in self._programs)
                    raise StartFailed(f"not ready after {_READY_DEADLINE_S:.0f} s\n{logs}")
                time.sleep(0.02)


def _folders_from_here(env: Mapping[str, str]) -> dict[str, str]:
    """The folders that `env` names from where we are, for children that run elsewhere."""
    named = {name: env[name] for name in _FOLDERS if env.get(name) and "://" not in env[name]}
    return {name: str(Path(folder).expanduser().absolute()) for name, folder in named.items()}


def listenable_port(host: str, port: int) -> int:
    """The port, or a free one for 0, after a look whether we may listen there.

    Raises:
        StartFailed: the port is taken, or the host is none of this machine's.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family) as probe:
            return int(probe.getsockname()[1])
    except OSError as error:
        raise StartFailed(f"cannot listen on {host}, port {port}: {error.strerror}") from None
