"""A bound on the bytes that downloads hold together; for one event loop."""

import asyncio
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager


class Share:
    """What one download holds of a budget, in bytes."""

    def __init__(self, budget: "ByteBudget") -> None:
        self.held = 0
        self._budget = budget

    def take(self, count: int) -> bool:
        """Hold `count` more; False where they have to be waited for."""
        return self._budget.take(self, count)

    async def wait_for(self, count: int) -> None:
        """Hold `count` more once it is this download's turn."""
        await self._budget.wait_for(self, count)


class ByteBudget:
    """Lets all shares together hold `total` bytes, and one of them whatever it needs beyond.

    Those who grow wait for each other, holding what they have. So that they never wait for ever,
    the first that finds too little left may go beyond the total until it is done, then the next.
    """

    def __init__(self, total: int) -> None:
        self._left = total
        self._first: Share | None = None
        self._waiting: deque[tuple[asyncio.Future[None], Share, int]] = deque()

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Give a share that is returned when the block ends."""
        share = Share(self)
        try:
            yield share
        finally:
            self.give_back(share)

    def give_back(self, share: Share) -> None:
        """Take back all that a share holds."""
        self._left += share.held
        share.held = 0
        if self._first is share:
            self._first = None
        self._grant()

    def take(self, share: Share, count: int) -> bool:
        """See `Share.take`; those who come later do not pass those who wait."""
        if share is not self._first and (self._waiting or not self._fits(share, count)):
            return False
        self._left -= count
        share.held += count
        return True

    async def wait_for(self, share: Share, count: int) -> None:
        """See `Share.wait_for`."""
        granted = asyncio.get_running_loop().create_future()
        self._waiting.append((granted, share, count))
        self._grant()
        await granted

    def _fits(self, share: Share, count: int) -> bool:
        if count > self._left and self._first is None:
            self._first = share
        return count <= self._left or share is self._first

    def _grant(self) -> None:
        while self._waiting:
            granted, share, count = self._waiting[0]
            if not granted.cancelled():
                if not self._fits(share, count):
                    return
                self._left -= count
                share.held += count
                granted.set_result(None)
            self._waiting.popleft()
