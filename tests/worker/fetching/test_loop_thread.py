"""The event loop in a thread, as other threads use it."""

import asyncio
import threading
from concurrent.futures import CancelledError

import pytest

from worker.fetching.loop_thread import LoopThread


def test_closing_cancels_tasks_then_runs_the_last_coroutine_then_ends_the_thread() -> None:
    order: list[str] = []

    async def forever() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            order.append("task")

    async def last() -> None:
        order.append("last")

    loop = LoopThread("of a test")
    work = loop.begin(forever())
    loop.run(asyncio.sleep(0))
    loop.close(last())
    with pytest.raises(CancelledError):
        work.result(timeout=30)
    assert order == ["task", "last"]
    assert "of a test" not in [thread.name for thread in threading.enumerate()]


def test_an_error_of_a_coroutine_is_raised_to_the_caller() -> None:
    async def failing() -> None:
        raise ValueError("no")

    loop = LoopThread("of a test")
    try:
        with pytest.raises(ValueError, match="no"):
            loop.run(failing())
    finally:
        loop.close(asyncio.sleep(0))
