"""The slots and pauses of a host, on the clock of an event loop."""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from yarl import URL

from worker.fetching.host_limits import (
    KEPT_HOSTS,
    MAX_BACKOFF_S,
    MAX_PAUSE_S,
    Host,
    HostLimits,
    HostUnavailable,
)
from worker.fetching.session import BACKOFF_S

T = TypeVar("T")


def run(test: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return asyncio.run(asyncio.wait_for(test(), timeout=30))


def now() -> float:
    return asyncio.get_running_loop().time()


def stop_clock() -> None:
    """Let no time pass in the running loop from now on."""
    loop = asyncio.get_running_loop()
    at = loop.time()
    loop.time = lambda: at  # type: ignore[method-assign]


async def at_once(host: Host, count: int) -> int:
    """Send `count` requests together; gives how many ran at the same time."""
    busy = most = 0

    async def ask() -> None:
        nonlocal busy, most
        async with host.slot():
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(0)
            busy -= 1

    await asyncio.gather(*(ask() for _ in range(count)))
    return most


def test_without_a_named_time_the_pauses_double_up_to_a_limit_and_vary() -> None:
    async def pauses(count: int) -> list[float]:
        stop_clock()
        host, seen = Host(8, 10), []
        for _ in range(count):
            host.pushed_back(math.inf, 503, 0)
            seen.append(host.pause_s)
        return seen

    many = [run(lambda: pauses(12)) for _ in range(20)]
    for retry in range(4):
        longest = BACKOFF_S * 2**retry
        assert all(longest / 4 <= one[retry] <= longest for one in many)
        assert len({round(one[retry], 4) for one in many}) > 1
    assert all(one[-1] <= MAX_BACKOFF_S for one in many)


@pytest.mark.parametrize(
    ("asked_for_s", "least"), [(3, 3), (3600, MAX_PAUSE_S), (math.inf, MAX_PAUSE_S)]
)
def test_the_pause_that_a_host_names_is_kept_up_to_a_limit(
    asked_for_s: float, least: float
) -> None:
    async def pause() -> float:
        stop_clock()
        host = Host(8, 10)
        host.pushed_back(now(), 429, asked_for_s)
        return host.pause_s

    assert least <= run(pause) <= min(asked_for_s + BACKOFF_S, MAX_PAUSE_S)


def test_concurrent_requests_that_are_pushed_back_count_once() -> None:
    async def pause() -> float:
        host, asked = Host(8, 10), now()
        for _ in range(8):
            host.pushed_back(asked, 503, 0)
            await asyncio.sleep(0.001)
        return host.pause_s

    assert run(pause) <= BACKOFF_S


def test_a_host_that_times_out_gets_fewer_requests_and_more_again_as_it_answers() -> None:
    async def slots() -> list[int]:
        host = Host(8, 10)
        seen = [await at_once(host, 20)]
        host.timed_out(now())
        seen.append(await at_once(host, 20))
        host.timed_out(now())
        host.timed_out(now())
        host.timed_out(now())
        seen.append(await at_once(host, 20))
        for _ in range(100):
            host.answered()
        seen.append(await at_once(host, 20))
        return seen

    assert run(slots) == [8, 4, 1, 8]


def test_a_pause_ends_by_itself() -> None:
    async def ask() -> float:
        host, began = Host(1, 10), now()
        host.pushed_back(now(), 429, 0.2)
        await at_once(host, 3)
        return now() - began

    assert run(ask) >= 0.2


def test_a_pause_longer_than_the_longest_wait_fails_at_once() -> None:
    async def ask() -> None:
        host = Host(1, 10)
        host.pushed_back(now(), 429, 30)
        host.answered()  # to a request that was under way
        async with host.slot():
            raise AssertionError("the host is paused")

    with pytest.raises(HostUnavailable) as caught:
        run(ask)
    assert caught.value.status == 429


def test_a_host_is_silent_only_while_an_answer_is_expected() -> None:
    async def waits() -> tuple[bool, bool]:
        host = Host(1, 0.1)

        async def ask() -> None:
            async with host.slot():
                pass

        async with host.slot():
            waiting = asyncio.create_task(ask())
            await asyncio.sleep(0.5)
            waited = not waiting.done()
            host.asked()
            await asyncio.wait([waiting])
            host.heard()
            again = asyncio.create_task(ask())
            await asyncio.sleep(0.5)
            waited = waited and not again.done()
        await again
        return waited, isinstance(waiting.exception(), HostUnavailable)

    assert run(waits) == (True, True)


def test_a_retry_goes_before_first_requests() -> None:
    async def order() -> list[str]:
        host, seen = Host(1, 10), list[str]()

        async def ask(name: str, retry: bool) -> None:
            async with host.slot(retry=retry):
                seen.append(name)

        async with host.slot():
            tasks = [asyncio.create_task(ask(name, name == "retry")) for name in ("new", "retry")]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        return seen

    assert run(order) == ["retry", "new"]


def test_a_cancelled_wait_passes_its_slot_on() -> None:
    async def ask() -> int:
        host = Host(1, 10)
        async with host.slot():
            cancelled = [asyncio.create_task(at_once(host, 1)) for _ in range(3)]
            waiting = asyncio.create_task(at_once(host, 1))
            await asyncio.sleep(0)
            cancelled[0].cancel()
        cancelled[1].cancel()
        cancelled[2].cancel()
        return await waiting

    assert run(ask) == 1


def test_idle_hosts_are_forgotten_and_paused_ones_kept() -> None:
    async def kept() -> bool:
        hosts = HostLimits(1, 10)
        paused = hosts.of(URL("http://paused.example/a"))
        paused.pushed_back(now(), 429, 30)
        for n in range(3 * KEPT_HOSTS):
            hosts.of(URL(f"http://{n}.example/"))
        assert len(hosts) <= KEPT_HOSTS
        return hosts.of(URL("http://PAUSED.example/b")) is paused

    assert run(kept)
