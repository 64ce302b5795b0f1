"""Restarts a process, with growing pauses, whenever it ends by itself."""

import sys
import threading
import time

from scripts.local.supervised_process import StartFailed, SupervisedProcess

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_STABLE_S = 10.0  # a process that ran this long restarts after the first pause again


class Supervisor:
    """Watches one running process in a thread until `release`."""

    def __init__(self, name: str, process: SupervisedProcess) -> None:
        self.name = name
        self.process = process
        self.exit_count = 0
        self._released = threading.Event()
        self._restarting = threading.Lock()
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
        pause_s = _FIRST_PAUSE_S
        while True:
            started = time.monotonic()
            code = self.process.wait()
            if self._released.is_set():
                return
            self.exit_count += 1
            if time.monotonic() - started > _STABLE_S:
                pause_s = _FIRST_PAUSE_S
            self._log(f"ended with exit code {code}, restarting it in {pause_s:.1f} s")
            self._released.wait(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            with self._restarting:
                if self._released.is_set():
                    return
                try:
                    self.process.start()
                except (StartFailed, OSError) as error:  # the next round tries again
                    self._log(f"does not start: {error}")

    def _log(self, event: str) -> None:
        print(f"{self.name} {event}", file=sys.stderr, flush=True)
