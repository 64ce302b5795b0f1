"""Limits each host's concurrent requests, and keeps the pauses it asks for; for one event loop."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from yarl import URL

from worker.fetching.session import backoff_s

# If a host that pushes back names no time, its pauses double from BACKOFF_S up to this one.
MAX_BACKOFF_S = 5
# The longest pause that a host can ask for.
MAX_PAUSE_S = 60
# With more hosts than this, those without requests and pauses are forgotten.
KEPT_HOSTS = 1000


class HostUnavailable(Exception):
    """A host is not going to answer in time; `status` is its 429 or 503, if it sent one."""

    def __init__(self, status: int | None) -> None:
        super().__init__(status)
        self.status = status


class Host:
    """The limits of one host, shared by all downloads of a process.

    At most `slots` requests run at once: half as many after each 429, 503 or timeout, and one more
    for each answer. A request that waits fails once the host has been silent for `silence_s`; a
    host that owes no answer is not silent. `status` is the last 429 or 503, and None after any
    other answer that does not come during its pause.
    """

    def __init__(self, slots: int, silence_s: float) -> None:
        self.status: int | None = None
        self._slots = self._limit = slots
        self._silence_s = silence_s
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._busy = 0
        self._open_at = self._limited_at = -math.inf
        self._silent_since: float | None = None
        self._pushback_count = 0
        self._timer: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether it has no requests and no pause."""
        return not self._busy and not self._waiting and self._loop.time() >= self._open_at

    @property
    def pause_s(self) -> float:
        """How much of its pause remains; negative if it is over."""
        return self._open_at - self._loop.time()

    @asynccontextmanager
    async def slot(self, *, retry: bool = False) -> AsyncIterator[None]:
        """Wait for a slot and hold it while the block runs; a `retry` goes before the others.

        Raises:
            HostUnavailable: the wait would take too long.
        """
        slot = self._loop.create_future()
        if retry:
            self._waiting.appendleft(slot)
        else:
            self._waiting.append(slot)
        self._grant()
        try:
            await self._wait(slot)
            yield
        finally:
            if not slot.cancel() and slot.exception() is None:
                self._busy -= 1
                self._grant()

    async def wait_for_pause(self) -> None:
        """Wait until its pause is over, without a slot.

        Raises:
            HostUnavailable: the wait would take too long.
        """
        if (pause_s := self.pause_s) > self._silence_s:
            raise HostUnavailable(self.status)
        if pause_s > 0:
            await asyncio.sleep(pause_s)

    def asked(self) -> None:
        """Record that the host owes an answer, or the rest of one."""
        if self._silent_since is None:
            self._silent_since = self._loop.time()

    def heard(self) -> None:
        """Record that the host is not silent."""
        self._silent_since = None

    def answered(self) -> None:
        """Record a success or a final failure."""
        self.heard()
        self._pushback_count = 0
        if self.pause_s <= 0:
            self.status = None
        self._limit = min(self._limit + 1, self._slots)
        self._grant()

    def timed_out(self, sent_at: float) -> None:
        """Record that a request sent at `sent_at`, by the loop's clock, got no answer."""
        if sent_at >= self._limited_at:
            self._halve_limit()

    def pushed_back(self, sent_at: float, status: int, pause_s: float) -> None:
        """Record a 429 or 503 and the pause that it asks for, 0 if it names none.

        Of several requests that were under way together, only the first reduces the limit.
        """
        self.status = status
        if sent_at >= self._limited_at:
            self._halve_limit()
            self._pushback_count += 1
            pause_s += backoff_s(min(self._pushback_count - 1, 9), MAX_BACKOFF_S)
        self._open_at = max(self._open_at, self._loop.time() + min(pause_s, MAX_PAUSE_S))
        if self.pause_s > self._silence_s:  # longer than any waiting request waits
            while self._waiting:
                if not (slot := self._waiting.popleft()).done():
                    slot.set_exception(HostUnavailable(status))

    def _halve_limit(self) -> None:
        self._limited_at = self._loop.time()
        self._limit = max(1, self._limit // 2)

    async def _wait(self, slot: asyncio.Future[None]) -> None:
        began = self._loop.time()
        while not slot.done():
            now = self._loop.time()
            silent_since = now if self._silent_since is None else self._silent_since
            deadline = max(began, silent_since) + self._silence_s
            if now >= deadline or self._open_at > deadline:
                raise HostUnavailable(self.status)
            await asyncio.wait([slot], timeout=deadline - now)
        slot.result()

    def _grant(self) -> None:
        """Give free slots to the requests that wait, or set a timer for the end of the pause."""
        while self._waiting and self._busy < self._limit:
            if self._waiting[0].cancelled():
                self._waiting.popleft()
            elif (pause_s := self.pause_s) > 0:
                if self._timer:
                    self._timer.cancel()
                self._timer = self._loop.call_later(pause_s, self._grant)
                return
            else:
                self._busy += 1
                self._waiting.popleft().set_result(None)


class HostLimits:
    """The hosts that a process fetches from, by name and port."""

    def __init__(self, slots: int, silence_s: float) -> None:
        self._slots = slots
        self._silence_s = silence_s
        self._hosts: dict[tuple[str, int | None], Host] = {}

    def __len__(self) -> int:
        return len(self._hosts)

    def of(self, url: URL) -> Host:
        """Give the host of a URL."""
        key = (url.raw_host or "").lower(), url.port
        if key not in self._hosts:
            if len(self._hosts) >= KEPT_HOSTS:
                self._hosts = {known: host for known, host in self._hosts.items() if not host.idle}
            self._hosts[key] = Host(self._slots, self._silence_s)
        return self._hosts[key]
