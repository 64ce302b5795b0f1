"""A thread that does something again and again beside the scoring."""

import threading
from collections.abc import Callable


class PeriodicThread:
    """Calls `work` in a daemon thread, each time `period_s` after the last call ended."""

    def __init__(self, name: str, period_s: float, work: Callable[[], None], stop_s: float) -> None:
        self.stopping = threading.Event()
        self._period_s = period_s
        self._stop_s = stop_s
        self._work = work
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Make no further call, and wait up to `stop_s` for the current one."""
        self.stopping.set()
        self._thread.join(self._stop_s)

    def _run(self) -> None:
        while not self.stopping.wait(self._period_s):
            self._work()
