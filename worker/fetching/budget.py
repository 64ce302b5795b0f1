"""A limit on the bytes that downloads hold together, for one event loop."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(eq=False)
class Share:
    """The bytes that one download holds of a budget."""

    held: int = 0


class ByteBudget:
    """Lets all shares together hold `total` bytes, and one share as much as it needs beyond.

    Downloads that need more bytes keep theirs while they wait for each other. To prevent a
    deadlock, the first share that does not fit may exceed the total until its download ends; then
    the next one may.
    """

    def __init__(self, total: int) -> None:
        self._free = total
        self._unlimited: Share | None = None
        self._waiting = asyncio.Lock()  # wakes its waiters in order
        self._released = asyncio.Event()

    @contextmanager
    def share(self) -> Iterator[Share]:
        """Give an empty share, and release its bytes when the block ends."""
        share = Share()
        try:
            yield share
        finally:
            self._free += share.held
            share.held = 0
            if self._unlimited is share:
                self._unlimited = None
            self._released.set()

    def take(self, share: Share, count: int) -> bool:
        """Add `count` bytes to a share; False if they do not fit, or others wait already."""
        if share is not self._unlimited and self._waiting.locked():
            return False
        return self._add(share, count)

    async def wait_for(self, share: Share, count: int) -> None:
        """Add `count` bytes to a share as soon as they fit, in the order of the calls."""
        async with self._waiting:
            while not self._add(share, count):
                self._released.clear()
                await self._released.wait()

    def _add(self, share: Share, count: int) -> bool:
        if count > self._free:
            if self._unlimited is None:
                self._unlimited = share
            if share is not self._unlimited:
                return False
        self._free -= count
        share.held += count
        return True
