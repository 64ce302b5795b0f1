"""The limit on the bytes of downloads: kept, fair, and free of deadlocks."""

import asyncio
from contextlib import ExitStack

from hypothesis import given, settings
from hypothesis import strategies as st

from worker.fetching.budget import ByteBudget, Share

SIZES = st.lists(st.integers(1, 300), min_size=1, max_size=12)


async def take(budget: ByteBudget, share: Share, count: int) -> None:
    if not budget.take(share, count):
        await budget.wait_for(share, count)


@given(SIZES, st.integers(1, 400), st.integers(1, 60))
@settings(deadline=None)
def test_all_downloads_end_and_only_one_of_them_exceeds_the_total(
    sizes: list[int], total: int, step: int
) -> None:
    async def run() -> tuple[int, int]:
        budget, shares, done, most = ByteBudget(total), list[Share](), 0, 0

        async def download(size: int) -> None:
            nonlocal done, most
            with budget.share() as share:
                shares.append(share)
                while share.held < size:
                    await take(budget, share, min(step, size - share.held))
                    most = max(most, sum(one.held for one in shares))
                    await asyncio.sleep(0)
            done += 1

        await asyncio.wait_for(asyncio.gather(*map(download, sizes)), timeout=30)
        return done, most

    done, most = asyncio.run(run())
    assert done == len(sizes)
    assert most <= total + max(sizes)


def test_within_the_total_no_share_waits() -> None:
    budget = ByteBudget(100)
    with budget.share() as one, budget.share() as other:
        assert budget.take(one, 60)
        assert budget.take(other, 40)


def test_a_share_larger_than_the_total_is_granted_alone() -> None:
    budget = ByteBudget(100)
    with budget.share() as share:
        assert all(budget.take(share, 30) for _ in range(10))
    with budget.share() as share:
        assert budget.take(share, 100), "all bytes are released"


def test_waiting_shares_are_served_in_order() -> None:
    async def run() -> list[str]:
        budget, order = ByteBudget(100), list[str]()

        async def wait(name: str, count: int) -> None:
            with budget.share() as share:
                await budget.wait_for(share, count)
                order.append(name)

        with ExitStack() as held, budget.share() as ahead:
            first = held.enter_context(budget.share())
            assert budget.take(first, 60)
            assert budget.take(ahead, 50), "the share that may exceed the total"
            waiting = [
                asyncio.create_task(wait(name, count))
                for name, count in (("large", 90), ("small", 1), ("smaller", 1))
            ]
            await asyncio.sleep(0)
            held.close()
            assert order == []
            with budget.share() as late:
                assert not budget.take(late, 1), "there is room, but others wait"
        await asyncio.gather(*waiting)
        return order

    assert asyncio.run(run()) == ["large", "small", "smaller"]


def test_a_cancelled_wait_blocks_no_other_share() -> None:
    async def run() -> None:
        budget = ByteBudget(10)
        with ExitStack() as first, budget.share() as other, budget.share() as last:
            assert budget.take(first.enter_context(budget.share()), 11)
            cancelled = asyncio.create_task(budget.wait_for(other, 5))
            waiting = asyncio.create_task(budget.wait_for(last, 5))
            await asyncio.sleep(0)
            cancelled.cancel()
            first.close()
            await waiting
            assert (other.held, last.held) == (0, 5)

    asyncio.run(run())
