"""Per-host concurrency for work that waits in Redis instead of in this process."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MAX_WAIT_S = 300


@dataclass
class _Host:
    """A host with busy slots; `next_at` is the latest time promised, by the monotonic clock."""

    busy: int = 0
    took_s: float = 1
    next_at: float = 0


class HostSlots:
    """Lets `slots` requests at a time go to one host, for one event loop."""

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._hosts: dict[str, _Host] = {}

    def wait_s(self, host: str, now: float) -> float:
        """Give 0 if a slot is free, else how many seconds to wait before the next try.

        Each wait ends later than the one before, by the time that a slot takes, so that the work
        for a slow host comes back when a slot is likely to be free.
        """
        known = self._hosts.get(host)
        if known is None or known.busy < self._slots:
            return 0
        after_last = max(known.next_at, now) + known.took_s / self._slots
        known.next_at = min(after_last, now + MAX_WAIT_S)
        return known.next_at - now

    @contextmanager
    def slot(self, host: str) -> Iterator[None]:
        """Hold a slot while the block runs."""
        known = self._hosts.setdefault(host, _Host())
        known.busy += 1
        started = time.monotonic()
        try:
            yield
        finally:
            known.busy -= 1
            known.took_s = time.monotonic() - started
            if not known.busy:
                del self._hosts[host]
