"""The thread with an event loop, as those who use it from other threads see it."""

import asyncio
import threading
from concurrent.futures import CancelledError

import pytest

from worker.fetching.loop_thread import LoopThread


def test_what_is_under_way_ends_before_the_last_and_the_thread_after_it() -> None:
    order: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            order.append("under way")

    async def last() -> None:
        order.append("last")

    loop = LoopThread("of a test")
    work = loop.begin(forever())
    loop.run(asyncio.sleep(0))
    loop.close(last())
    with pytest.raises(CancelledError):
        work.result(timeout=30)
    assert order == ["under way", "last"]
    assert "of a test" not in [thread.name for thread in threading.enumerate()]


def test_what_a_coroutine_raises_comes_out_where_it_is_waited_for() -> None:
    async def failing() -> None:
        raise ValueError("no")

    loop = LoopThread("of a test")
    try:
        with pytest.raises(ValueError, match="no"):
            loop.run(failing())
    finally:
        loop.close(asyncio.sleep(0))
