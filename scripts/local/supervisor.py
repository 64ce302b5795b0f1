"""Restarts a process whenever it ends: at once, or with growing pauses if it ends at its start."""

import sys
import threading
import time

from scripts.local.supervised_process import StartFailed, SupervisedProcess

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_STARTED_S = 2.0  # a process that ran this long had started: it restarts at once


class Supervisor:
    """Watches one running process in a thread until `release`."""

    def __init__(self, name: str, process: SupervisedProcess) -> None:
        self.name = name
        self.process = process
        self.exit_count = 0
        self._released = threading.Event()
        self._restarting = threading.Lock()
        self._started = time.monotonic()
        self._thread = threading.Thread(target=self._run, name=f"supervisor-{name}", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Stop supervising: the process is not restarted after this call returns."""
        self._released.set()
        with self._restarting:
            pass

    def stop(self, grace_s: float) -> None:
        """Release the process, stop it, and end the thread."""
        self.release()
        self.process.stop(grace_s)
        self._thread.join()

    def _run(self) -> None:
        started, pause_s = self._started, 0.0
        while True:
            code = self.process.wait()
            if self._released.is_set():
                return
            self.exit_count += 1
            if time.monotonic() - started < _STARTED_S:
                pause_s = min(max(2 * pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
            else:
                pause_s = 0
            when = f"in {pause_s:.1f} s" if pause_s else "at once"
            self._log(f"ended with exit code {code}, restarting it {when}")
            self._released.wait(pause_s)
            with self._restarting:
                if self._released.is_set():
                    return
                started = time.monotonic()
                try:
                    self.process.start()
                except (StartFailed, OSError) as error:  # the next round tries again
                    self._log(f"does not start: {error}")

    def _log(self, event: str) -> None:
        print(f"{self.name} {event}", file=sys.stderr, flush=True)
