"""What one owner may use of an API process, so that the others find room."""

from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from itertools import islice
from typing import ParamSpec, TypeVar
from weakref import WeakValueDictionary

from anyio import CapacityLimiter, to_thread

from worker.jobs.errors import OverQuota
from worker.jobs.ledger.api_keys import ANYONE

RETRY_S = 5

_P = ParamSpec("_P")
_T = TypeVar("_T")


class OwnerThreads:
    """Up to `total` threads, of which each owner gets up to `share`; further calls wait for one.

    Short calls have the threads of anyio to themselves.
    """

    def __init__(self, total: int, share: int) -> None:
        self._all = CapacityLimiter(total)
        self._share = share
        self._owners: WeakValueDictionary[str, CapacityLimiter] = WeakValueDictionary()

    async def run(
        self, owner: str, function: Callable[_P, _T], *args: _P.args, **options: _P.kwargs
    ) -> _T:
        """Call a function in a thread."""
        async with self._owners.setdefault(owner, CapacityLimiter(self._share)):
            return await to_thread.run_sync(partial(function, *args, **options), limiter=self._all)

    @asynccontextmanager
    async def slot(self, owner: str) -> AsyncIterator[None]:
        """Count the block as one of the threads; what runs in it has a thread of anyio."""
        async with self._owners.setdefault(owner, CapacityLimiter(self._share)), self._all:
            yield

    async def each(self, owner: str, values: Iterator[_T]) -> AsyncIterator[_T]:
        """Give the values of an iterator; it has a thread only while it makes the next one."""
        while found := await self.run(owner, list, islice(values, 1)):
            yield found[0]


class OpenRequests:
    """The requests in progress of each API key, of which one key may have up to `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.counts: Counter[str] = Counter()

    @contextmanager
    def count(self, owner: str) -> Iterator[None]:
        """Count a request while the block runs. Raises OverQuota."""
        if owner != ANYONE and self.counts[owner] >= self._most:
            raise OverQuota(
                f"{self._most} requests with this API key are in progress, which is the limit: "
                "wait until some are done",
                RETRY_S,
            )
        self.counts[owner] += 1
        try:
            yield
        finally:
            self.counts[owner] -= 1
            if not self.counts[owner]:
                del self.counts[owner]
