"""The bound on the bytes of downloads: kept, fair, and never a deadlock."""

import asyncio
from contextlib import ExitStack

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.fetching.budget import ByteBudget, Share

SIZES = st.lists(st.integers(1, 300), min_size=1, max_size=12)


async def hold(share: Share, count: int) -> None:
    if not share.take(count):
        await share.wait_for(count)


@given(SIZES, st.integers(1, 400), st.integers(1, 60))
@settings(deadline=None)
def test_all_get_done_and_hold_no_more_than_the_total_and_one_beyond(
    sizes: list[int], total: int, step: int
) -> None:
    async def run() -> tuple[int, int]:
        budget, shares, done, most = ByteBudget(total), list[Share](), 0, 0

        async def download(size: int) -> None:
            nonlocal done, most
            with budget.share() as share:
                shares.append(share)
                while share.held < size:
                    await hold(share, min(step, size - share.held))
                    most = max(most, sum(one.held for one in shares))
                    await asyncio.sleep(0)
            done += 1

        await asyncio.wait_for(asyncio.gather(*map(download, sizes)), timeout=30)
        return done, most

    done, most = asyncio.run(run())
    assert done == len(sizes)
    assert most <= total + max(sizes)


def test_within_the_total_nobody_waits() -> None:
    budget = ByteBudget(100)
    with budget.share() as one, budget.share() as other:
        assert one.take(60)
        assert other.take(40)


def test_one_larger_than_the_total_goes_on_alone() -> None:
    budget = ByteBudget(100)
    with budget.share() as share:
        assert all(share.take(30) for _ in range(10))
    with budget.share() as share:
        assert share.take(100), "all of it came back"


def test_those_who_wait_are_served_in_their_order() -> None:
    async def run() -> list[str]:
        budget, order = ByteBudget(100), list[str]()

        async def wait(name: str, count: int) -> None:
            with budget.share() as share:
                await share.wait_for(count)
                order.append(name)

        with ExitStack() as held, budget.share() as ahead:
            first = held.enter_context(budget.share())
            assert first.take(60)
            assert ahead.take(50), "the one that may go beyond"
            waiting = [
                asyncio.create_task(wait(name, count))
                for name, count in (("large", 90), ("small", 1), ("smaller", 1))
            ]
            await asyncio.sleep(0)
            held.close()
            assert order == []
            with budget.share() as late:
                assert not late.take(1), "there is room, but others wait"
        await asyncio.gather(*waiting)
        return order

    assert asyncio.run(run()) == ["large", "small", "smaller"]


def test_who_gives_up_waiting_holds_up_nobody() -> None:
    async def run() -> None:
        budget = ByteBudget(10)
        with budget.share() as ahead, budget.share() as other, budget.share() as last:
            assert ahead.take(11)
            gone = asyncio.create_task(other.wait_for(5))
            waiting = asyncio.create_task(last.wait_for(5))
            await asyncio.sleep(0)
            gone.cancel()
            budget.give_back(ahead)
            await waiting
            assert (other.held, last.held) == (0, 5)

    asyncio.run(run())
