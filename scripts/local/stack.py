"""Redis, the API and the workers on one machine: supervised, restarted and stopped together."""

import errno
import os
import random
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import httpx2

from scripts.local.embedded_redis import REDIS_MEMORY, STOP_GRACE_S, EmbeddedRedis
from scripts.local.supervised_process import StartFailed, SupervisedProcess
from scripts.local.supervisor import Supervisor
from worker.jobs.errors import SettingsInvalid
from worker.jobs.ledger.api_keys import KeyStore
from worker.jobs.ledger.connection import connect
from worker.jobs.settings import PREFIX, Settings, is_loopback, load_settings

ROOT = Path(__file__).resolve().parents[2]
_READY_DEADLINE_S = 60.0
_EXITS_BEFORE_READY_COUNT = 2
_API_GRACE_S = 12.0  # longer than the API waits for requests in progress
_WORKER_GRACE_S = 30.0  # to finish the chunks in progress
_STORAGE_URL = "PIQUEUE_STORAGE_URL"
_METRICS_PORT = "PIQUEUE_METRICS_PORT"
_FREE_PORTS = range(20_000, 32_768)
# Not the seeded one: tests in several processes would choose the same ports.
_RANDOM = random.SystemRandom()
_FREE_PORT_ATTEMPTS = 50
_FOLDERS = ("PIQUEUE_ARTIFACTS_PATH", "PIQUEUE_MODELS_CACHE_PATH", "PIQUEUE_REGISTRY_URL")


class Stack:
    """A complete Piqueue in subprocesses; their data and logs are in `folder`.

    Port 0 takes a free one. `env` is added to the environment of the API and the workers; unless
    the environment names a PIQUEUE_STORAGE_URL, uploads are in `folder` too. `redis_memory` is the
    limit of its Redis, as Redis writes it. With `redis_url` it uses that Redis and starts none. The
    logs of the previous run are kept as `*.log.1`. Without workers it counts as ready as soon as
    the API answers.
    """

    def __init__(
        self,
        folder: Path,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        workers: int = 1,
        env: Mapping[str, str] | None = None,
        redis_url: str | None = None,
        redis_memory: str = REDIS_MEMORY,
    ) -> None:
        self._folder = folder.resolve()
        self._host = host
        self._port = port
        self._worker_count = workers
        self.storage_url = os.environ.get(_STORAGE_URL, str(self._folder / "uploads"))
        self._env = {
            _STORAGE_URL: self.storage_url,
            **_absolute_folders(os.environ),
            **(env or {}),
        }
        self._redis = EmbeddedRedis(self._folder / "redis", maxmemory=redis_memory)
        self._other_redis_url = redis_url
        self._redis_supervisor: Supervisor | None = None
        self._api: Supervisor | None = None
        self._workers: list[Supervisor] = []

    @property
    def url(self) -> str:
        """The API's address on this machine, without a trailing slash."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self._port}"

    @property
    def redis_url(self) -> str:
        """The address of its Redis."""
        return self._other_redis_url or self._redis.url

    @property
    def redis_pid(self) -> int | None:
        """Process id of the Redis server, None while it does not run."""
        return self._redis.pid

    @property
    def api_pid(self) -> int | None:
        """Process id of the API, None while it does not run."""
        return self._api.process.pid if self._api else None

    @property
    def workers(self) -> list[int]:
        """Process ids of the workers that run now."""
        return [pid for worker in self._workers if (pid := worker.process.pid) is not None]

    def start(self) -> None:
        """Start everything and wait until the API reports that it is ready.

        Raises:
            StartFailed: a setting is invalid, the port is taken, the folder is in use, an API key
                is missing, or a process does not start; the text then includes the ends of the
                logs.
        """
        settings = self._settings()
        self._port = listenable_port(self._host, self._port)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            if self._other_redis_url is None:
                self._redis.start()
                self._redis_supervisor = Supervisor("redis", self._redis.process)
            if not is_loopback(self._host) and not settings.allow_no_keys:
                self._require_keys()
            address = ("--host", self._host, "--port", str(self._port))
            self._api = self._launch("api", ("-m", "api", *address), {})
            for number in range(self._worker_count):
                name, env = f"worker-{number + 1}", self._worker_env(number)
                self._workers.append(self._launch(name, ("-m", "worker"), env))
            self._wait_until_ready()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the API, let the workers finish, then stop Redis; nothing keeps running.

        Interrupted while the workers finish, it kills them.
        """
        try:
            for service in self._services:
                service.release()
            if self._api:
                self._api.process.stop(_API_GRACE_S)
            for worker in self._workers:
                worker.process.terminate()
            deadline = time.monotonic() + _WORKER_GRACE_S
            for worker in self._workers:
                worker.process.wait(max(0.0, deadline - time.monotonic()))
        finally:
            for service in self._services:
                service.stop(grace_s=0)
            if self._redis_supervisor:
                self._redis_supervisor.stop(STOP_GRACE_S)
            self._redis.stop()
            self._redis_supervisor, self._api, self._workers = None, None, []

    @contextmanager
    def redis_stopped(self, grace_s: float = STOP_GRACE_S) -> Iterator[None]:
        """Shut Redis down, with its data on disk, while the block runs; without grace, kill it."""
        assert self._redis_supervisor, "the stack does not run its own Redis"
        self._redis_supervisor.stop(grace_s)
        try:
            yield
        finally:
            self._redis.process.start()
            self._redis_supervisor = Supervisor("redis", self._redis.process)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _services(self) -> list[Supervisor]:
        return [self._api, *self._workers] if self._api else []

    def _settings(self) -> Settings:
        """What the API and the workers read, so that a mistake is found before they start."""
        own = {
            name.removeprefix(PREFIX).lower(): value
            for name, value in self._env.items()
            if name.startswith(PREFIX)
        }
        try:
            return load_settings(**own)
        except SettingsInvalid as error:
            raise StartFailed(str(error)) from None

    def _require_keys(self) -> None:
        with connect(self.redis_url, timeout_s=2, retries=0) as client:
            if KeyStore(client).exist():
                return
        raise StartFailed(
            f"""no API key exists, so anyone who reaches {self._host} could use this API: make one.
  1. Run the same command with --host 127.0.0.1, on which only this machine can reach it.
  2. In another terminal, paste the `export` lines that it prints, and run:
     piqueue keys add NAME
  3. Stop it with Ctrl-C, and run it with --host {self._host} again: it keeps the keys.
To serve without keys, set PIQUEUE_ALLOW_NO_KEYS=true."""
        )

    def _worker_env(self, number: int) -> dict[str, str]:
        """Of each worker: a metrics port, counted up from the configured one."""
        port = self._env.get(_METRICS_PORT) or os.environ.get(_METRICS_PORT, "")
        counts = port.isdecimal() and int(port) > 0
        return {_METRICS_PORT: str(int(port) + number)} if counts else {}

    def _launch(self, name: str, arguments: Sequence[str], env: Mapping[str, str]) -> Supervisor:
        log_path = self._folder / f"{name}.log"
        if log_path.exists():
            log_path.replace(f"{log_path}.1")
        env = {**self._env, "PIQUEUE_REDIS_URL": self.redis_url, **env}
        process = SupervisedProcess([sys.executable, *arguments], log_path, env, ROOT)
        process.start()
        return Supervisor(name, process)

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_DEADLINE_S
        path = "/readyz" if self._workers else "/healthz"
        with httpx2.Client(base_url=self.url, timeout=5, trust_env=False) as client:
            while not _succeeds(client, path):
                for service in self._services:
                    if service.exit_count >= _EXITS_BEFORE_READY_COUNT:
                        failed = f"{service.name} does not keep running: see its log"
                        raise StartFailed(f"{failed}\n{service.process.log_tail()}")
                if time.monotonic() > deadline:
                    logs = "\n".join(one.process.log_tail() for one in self._services)
                    raise StartFailed(
                        f"not ready after {_READY_DEADLINE_S:.0f} s: see the logs\n{logs}"
                    )
                time.sleep(0.02)


def _succeeds(client: httpx2.Client, path: str) -> bool:
    try:
        return client.get(path).is_success
    except httpx2.TransportError:
        return False


def _absolute_folders(env: Mapping[str, str]) -> dict[str, str]:
    """The folders that `env` names, made absolute: subprocesses run in another folder."""
    named = {name: env[name] for name in _FOLDERS if env.get(name) and "://" not in env[name]}
    return {name: str(Path(folder).expanduser().absolute()) for name, folder in named.items()}


def listenable_port(host: str, port: int) -> int:
    """The port, or a free one for 0, once a socket could listen on it.

    A free port is taken from below those that systems give to outgoing connections and to sockets
    that listen on port 0: no other program gets it by chance before it is listened on.

    Raises:
        StartFailed: the port is taken, or the host is not an address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    failed: OSError | None = None
    for number in [port] if port else _RANDOM.sample(_FREE_PORTS, _FREE_PORT_ATTEMPTS):
        try:
            with socket.create_server((host, number), family=family):
                return number
        except OSError as error:
            failed = error
    assert failed
    if port and failed.errno == errno.EADDRINUSE:
        raise StartFailed(
            f"port {port} is in use, perhaps by another Piqueue: choose another with --port"
        )
    reason = str(failed.strerror).partition(" (while")[0]  # the address follows
    raise StartFailed(
        f"cannot listen on {host}, port {port}: {reason}: choose another address or port"
    )
