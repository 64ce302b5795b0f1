"""Places at each host, and later turns for those who find none free."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

MAX_WAIT_S = 300


@dataclass
class _Host:
    """A host with places taken; `turn` is when, by the monotonic clock, the last turn is."""

    busy: int = 0
    took_s: float = 1
    turn: float = 0


class HostSlots:
    """Lets `places` at a time go to one host; for one event loop."""

    def __init__(self, places: int) -> None:
        self._places = places
        self._hosts: dict[str, _Host] = {}

    def wait_s(self, host: str, now: float) -> float:
        """Give 0 where a place is free, else how long until the caller's turn.

        Each turn is later than the one given before, by what a place took of late, so that those
        who wait for a slow host come back when there is room and keep nobody else busy.
        """
        known = self._hosts.get(host)
        if known is None or known.busy < self._places:
            return 0
        after_last = max(known.turn, now) + known.took_s / self._places
        known.turn = min(after_last, now + MAX_WAIT_S)
        return known.turn - now

    @contextmanager
    def place(self, host: str) -> Iterator[None]:
        """Take a place while the block runs."""
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
