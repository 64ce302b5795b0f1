"""A host's turns and pauses, on the clock of an event loop."""

import asyncio
import math
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest
from yarl import URL

from worker.fetching.host_limits import KEPT_HOSTS, MAX_BACKOFF_S, MAX_PAUSE_S, Host, Hosts, NoTurn
from worker.fetching.session import BACKOFF_S

T = TypeVar("T")


def run(test: Callable[[], Coroutine[Any, Any, T]]) -> T:
    return asyncio.run(asyncio.wait_for(test(), timeout=30))


def now() -> float:
    return asyncio.get_running_loop().time()


async def at_once(host: Host, count: int) -> int:
    """Let `count` ask the host together; gives how many did so at the same time."""
    busy = most = 0

    async def ask() -> None:
        nonlocal busy, most
        async with host.turn():
            busy += 1
            most = max(most, busy)
            await asyncio.sleep(0)
            busy -= 1

    await asyncio.gather(*(ask() for _ in range(count)))
    return most


def test_without_a_time_the_pauses_double_up_to_a_bound_and_vary() -> None:
    async def pauses(count: int) -> list[float]:
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
    ("asked_for_s", "least"), [(3, 3), (3600, MAX_PAUSE_S - 1), (math.inf, MAX_PAUSE_S - 1)]
)
def test_the_time_a_host_names_is_kept_up_to_a_bound(asked_for_s: float, least: float) -> None:
    async def pause() -> float:
        host = Host(8, 10)
        host.pushed_back(now(), 429, asked_for_s)
        return host.pause_s

    assert least <= run(pause) <= min(asked_for_s + 1, MAX_PAUSE_S)


def test_what_was_under_way_when_a_host_pushed_back_counts_once() -> None:
    async def pause() -> float:
        host, asked = Host(8, 10), now()
        for _ in range(8):
            host.pushed_back(asked, 503, 0)
            await asyncio.sleep(0.001)
        return host.pause_s

    assert run(pause) <= BACKOFF_S


def test_a_host_that_pushed_back_gets_fewer_at_once_and_more_again_as_it_answers() -> None:
    async def places() -> list[int]:
        host = Host(8, 10)
        seen = [await at_once(host, 20)]
        host.hung(now())
        seen.append(await at_once(host, 20))
        host.hung(now())
        host.hung(now())
        host.hung(now())
        seen.append(await at_once(host, 20))
        for _ in range(100):
            host.answered()
        seen.append(await at_once(host, 20))
        return seen

    assert run(places) == [8, 4, 1, 8]


def test_a_pause_ends_by_itself() -> None:
    async def ask() -> float:
        host, began = Host(1, 10), now()
        host.pushed_back(now(), 429, 0.2)
        await at_once(host, 3)
        return now() - began

    assert run(ask) >= 0.2


def test_a_pause_longer_than_anyone_waits_is_not_waited_for() -> None:
    async def ask() -> None:
        host = Host(1, 10)
        host.pushed_back(now(), 429, 30)
        async with host.turn():
            raise AssertionError("it asked to be left alone")

    with pytest.raises(NoTurn) as caught:
        run(ask)
    assert caught.value.status == 429


def test_who_asks_again_comes_before_those_who_never_did() -> None:
    async def order() -> list[str]:
        host, seen = Host(1, 10), list[str]()

        async def ask(name: str, again: bool) -> None:
            async with host.turn(again=again):
                seen.append(name)

        async with host.turn():
            tasks = [asyncio.create_task(ask(name, name == "again")) for name in ("new", "again")]
            await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        return seen

    assert run(order) == ["again", "new"]


def test_a_turn_that_was_given_up_goes_to_the_next() -> None:
    async def ask() -> int:
        host = Host(1, 10)
        async with host.turn():
            gone = [asyncio.create_task(at_once(host, 1)) for _ in range(3)]
            waiting = asyncio.create_task(at_once(host, 1))
            await asyncio.sleep(0)
            gone[0].cancel()
        gone[1].cancel()
        gone[2].cancel()
        return await waiting

    assert run(ask) == 1


def test_hosts_that_nobody_asks_are_forgotten_and_others_not() -> None:
    async def kept() -> bool:
        hosts = Hosts(1, 10)
        paused = hosts.of(URL("http://paused.example/a"))
        paused.pushed_back(now(), 429, 30)
        for n in range(3 * KEPT_HOSTS):
            hosts.of(URL(f"http://{n}.example/"))
        assert len(hosts) <= KEPT_HOSTS
        return hosts.of(URL("http://PAUSED.example/b")) is paused

    assert run(kept)
