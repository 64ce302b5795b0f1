"""A subprocess with a session and a log file of its own that never outlives this process."""

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

# Reads from a pipe whose other end only this process holds. A line means that the process was
# reaped; end of file means that this process died without stopping it, possibly by SIGKILL.
_WATCHDOG = 'read -r reaped || kill -s KILL -- "-$1" 2>/dev/null'
_TAIL_BYTES = 2000
_POLL_S = 0.005

T = TypeVar("T")


class StartFailed(Exception):
    """A process did not start; the text names it and includes the end of its log."""


@dataclass
class SupervisedProcess:
    """A process that can be started repeatedly.

    `env` is added to the environment of this process, `pass_fds` are inherited, and both output
    streams are appended to `log_path`.
    """

    command: Sequence[str]
    log_path: Path
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    pass_fds: tuple[int, ...] = ()
    _process: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _watchdog: subprocess.Popen[bytes] | None = field(default=None, init=False)
    _watchdog_lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def start(self) -> None:
        """Start it in a session of its own, so that the terminal's Ctrl-C does not reach it."""
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
        self._watchdog = subprocess.Popen(
            ["sh", "-c", _WATCHDOG, "watchdog", str(self._process.pid)],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )

    def wait_until(self, ready: Callable[[], T | None], deadline_s: float, name: str) -> T:
        """Wait until `ready` returns a true value, and return it.

        Raises:
            StartFailed: the process ended first or exceeded the deadline; the text calls it `name`.
        """
        deadline = time.monotonic() + deadline_s
        while not (value := ready()):
            if self.pid is None:
                raise StartFailed(f"{name} ended while starting: see its log\n{self.log_tail()}")
            if time.monotonic() > deadline:
                raise StartFailed(
                    f"{name} was not ready in {deadline_s:.0f} s: see its log\n{self.log_tail()}"
                )
            time.sleep(_POLL_S)
        return value

    @property
    def pid(self) -> int | None:
        """Its process id, or None while it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    def wait(self, timeout_s: float | None = None) -> int | None:
        """Wait for its exit code, negative for a signal; None if it runs on after `timeout_s`."""
        if self._process is None:
            return None
        try:
            code = self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None
        with self._watchdog_lock:
            if self._watchdog is not None:
                self._watchdog.communicate(b"reaped\n")
                self._watchdog = None
        return code

    def terminate(self) -> None:
        """Send SIGTERM, on which our processes finish their work in progress and exit."""
        if self._process is not None:
            self._process.terminate()

    def kill(self) -> None:
        """Kill it and every process that it started."""
        if (pid := self.pid) is not None:
            with contextlib.suppress(ProcessLookupError, PermissionError):  # it ended meanwhile
                os.killpg(pid, signal.SIGKILL)

    def stop(self, grace_s: float) -> None:
        """Send SIGTERM, and kill it if it still runs after `grace_s`."""
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
