"""When each host may be asked: its places, and the pauses it asks for; for one event loop."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from yarl import URL

from worker.fetching.session import backoff_s

# Where a host that pushes back names no time, the pauses double from BACKOFF_S up to this.
MAX_BACKOFF_S = 5
# A host that asks to be left alone for longer is asked again after this time.
MAX_PAUSE_S = 60
# Above this many, hosts that nobody asks are forgotten.
KEPT_HOSTS = 1000


class NoTurn(Exception):
    """The wait for a host is given up; `status` is what it pushed back with, if it did."""

    def __init__(self, status: int | None) -> None:
        super().__init__(status)
        self.status = status


class Host:
    """One host, as all items of a process know it.

    At most `places` requests go to it at once; fewer after it pushed back or let one hang, one
    more again for each that it answers. Who waits gives up once it was silent for `silence_s`.
    `status` is what it pushed back with, until it answers otherwise.
    """

    def __init__(self, places: int, silence_s: float) -> None:
        self.status: int | None = None
        self._places = self._limit = places
        self._silence_s = silence_s
        self._loop = asyncio.get_running_loop()
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._busy = 0
        self._opens = self._answered = self._cut = -math.inf
        self._refusals = 0
        self._alarm: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        """Whether nobody asks it, nor is kept from it."""
        return not self._busy and not self._waiting and self._loop.time() >= self._opens

    @asynccontextmanager
    async def turn(self, *, again: bool = False) -> AsyncIterator[None]:
        """Hold a place while the block runs; who asks `again` comes before the others.

        Raises:
            NoTurn: it is not going to answer in time.
        """
        turn = self._loop.create_future()
        if again:
            self._waiting.appendleft(turn)
        else:
            self._waiting.append(turn)
        self._admit()
        try:
            await self._until(turn)
            yield
        finally:
            if not turn.cancel() and turn.exception() is None:
                self._busy -= 1
                self._admit()

    async def opened(self) -> None:
        """Wait until it may be asked, without taking a place.

        Raises:
            NoTurn: that would take too long.
        """
        if (pause_s := self.pause_s) > self._silence_s:
            raise NoTurn(self.status)
        if pause_s > 0:
            await asyncio.sleep(pause_s)

    @property
    def pause_s(self) -> float:
        """How long it asks to be left alone from now on."""
        return self._opens - self._loop.time()

    def answered(self) -> None:
        """Hear that it did as it was asked, or said for good that it will not."""
        self._answered = self._loop.time()
        self._refusals = 0
        self.status = None
        self._limit = min(self._limit + 1, self._places)
        self._admit()

    def hung(self, asked: float) -> None:
        """Hear that it did not answer a request sent at `asked`, by the loop's clock."""
        if asked >= self._cut:
            self._cut_down()

    def pushed_back(self, asked: float, status: int, pause_s: float) -> None:
        """Hear that it answered `status`, meaning later, and in how long, or 0 if it did not say.

        Of several requests that were under way together, the first counts.
        """
        self.status = status
        if asked >= self._cut:
            self._cut_down()
            self._refusals += 1
            pause_s += backoff_s(min(self._refusals - 1, 9), MAX_BACKOFF_S)
        self._opens = max(self._opens, self._loop.time() + min(pause_s, MAX_PAUSE_S))
        if self.pause_s > self._silence_s:  # longer than anyone who waits now will
            while self._waiting:
                if not (turn := self._waiting.popleft()).done():
                    turn.set_exception(NoTurn(status))

    def _cut_down(self) -> None:
        self._cut = self._loop.time()
        self._limit = max(1, self._limit // 2)

    async def _until(self, turn: asyncio.Future[None]) -> None:
        came = self._loop.time()
        while not turn.done():
            last = max(came, self._answered) + self._silence_s
            now = self._loop.time()
            if now >= last or self._opens > last:
                raise NoTurn(self.status)
            await asyncio.wait([turn], timeout=last - now)
        turn.result()

    def _admit(self) -> None:
        """Give the places that are free to those who wait, once the host may be asked."""
        while self._waiting and self._busy < self._limit:
            if self._waiting[0].cancelled():
                self._waiting.popleft()
            elif (pause_s := self.pause_s) > 0:
                if self._alarm:
                    self._alarm.cancel()
                self._alarm = self._loop.call_later(pause_s, self._admit)
                return
            else:
                self._busy += 1
                self._waiting.popleft().set_result(None)


class Hosts:
    """The hosts a process asks, by name and port."""

    def __init__(self, places: int, silence_s: float) -> None:
        self._places = places
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
            self._hosts[key] = Host(self._places, self._silence_s)
        return self._hosts[key]
