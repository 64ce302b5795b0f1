"""Starts a process again, with growing pauses, whenever it ends by itself."""

import sys
import threading
import time
from collections.abc import Callable

from scripts.local.supervised_process import StartFailed

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 10.0
_STEADY_S = 10.0  # who lived this long starts again at the first pause


class Supervisor:
    """Watches one running process in a thread until `release`.

    `wait` blocks until the process ends and gives its exit code, `restart` starts it again.
    """

    def __init__(
        self, name: str, wait: Callable[[], int | None], restart: Callable[[], None]
    ) -> None:
        self.name = name
        self.ended_count = 0
        self._wait = wait
        self._restart = restart
        self._released = threading.Event()
        self._restarting = threading.Lock()
        self._thread = threading.Thread(target=self._run, name=f"keeper-{name}", daemon=True)
        self._thread.start()

    def release(self) -> None:
        """Leave the process alone from now on: no start follows the return of this call."""
        self._released.set()
        with self._restarting:
            pass

    def join(self) -> None:
        """Wait for the thread; only after `release` and the end of the process."""
        self._thread.join()

    def _run(self) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            started = time.monotonic()
            code = self._wait()
            if self._released.is_set():
                return
            self.ended_count += 1
            if time.monotonic() - started > _STEADY_S:
                pause_s = _FIRST_PAUSE_S
            print(
                f"{self.name} ended with {code}, starting it again in {pause_s:.1f} s",
                file=sys.stderr,
                flush=True,
            )
            self._released.wait(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
            with self._restarting:
                if self._released.is_set():
                    return
                self._try_restart()

    def _try_restart(self) -> None:
        try:
            self._restart()
        except (StartFailed, OSError) as error:  # the next round tries again
            print(f"{self.name} does not start: {error}", file=sys.stderr, flush=True)
