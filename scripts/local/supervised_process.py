"""One process that we start: in a session of its own, with a log file, gone when we are gone."""

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

# Waits on a pipe that only we hold. A line means that the child was reaped; end of file means
# that we died without stopping it, were it by SIGKILL.
_LEASH = 'read -r reaped || kill -s KILL -- "-$1" 2>/dev/null'
_TAIL_BYTES = 2000
_POLL_S = 0.005

T = TypeVar("T")


class StartFailed(Exception):
    """Something did not come up; the text says what, and shows the end of its log."""


@dataclass
class SupervisedProcess:
    """A process that can be started again and again.

    `env` is added to our own environment, `pass_fds` are inherited, `log_path` gets both output
    streams, appended.
    """

    command: Sequence[str]
    log_path: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    pass_fds: tuple[int, ...] = ()
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _leash: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _releasing: threading.Lock = field(default_factory=threading.Lock, init=False)

    def start(self) -> None:
        """Start it; the session of its own keeps the terminal's Ctrl-C away from it."""
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                self.command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "PYTHONUNBUFFERED": "1", **self.env},
                cwd=self.cwd,
                pass_fds=self.pass_fds,
                start_new_session=True,
            )
        self._leash = subprocess.Popen(
            ["sh", "-c", _LEASH, "leash", str(self._process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def wait_until(self, ready: Callable[[], T | None], deadline_s: float, name: str) -> T:
        """Wait until `ready` gives something true, and give that.

        Raises:
            StartFailed: the process, which people know by `name`, ended before or took too long.
        """
        deadline = time.monotonic() + deadline_s
        while not (found := ready()):
            if self.pid is None:
                raise StartFailed(f"{name} ended while starting\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise StartFailed(f"{name} was not ready in {deadline_s:.0f} s\n{self.log_tail()}")
            time.sleep(_POLL_S)
        return found

    @property
    def pid(self) -> int | None:
        """Its process id, or None while it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Its exit code, negative for a signal; None when it still runs after `timeout_s`."""
        if self._process is None:
            return None
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        with self._releasing:
            if self._leash is not None:
                self._leash.communicate(b"reaped\n")
                self._leash = None
        return code

    def terminate(self) -> None:
        """Ask it to finish what it holds and end."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """End it and what it started, now."""
        if (pid := self.pid) is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended meanwhile
                os.killpg(pid, signal.SIGKILL)

    def stop(self, grace_s: float) -> None:
        """Ask it to end, and end it when it has not after `grace_s`."""
        try:
            self.terminate()
            self.wait(grace_s)
        finally:
            self.kill()
            self.wait()

    def log_tail(self) -> str:
        """The end of its log, for people."""
        log = self.log_path.read_bytes() if self.log_path.exists() else b""
        return f"--- {self.log_path}\n{log[-_TAIL_BYTES:].decode(errors='replace').rstrip()}"
