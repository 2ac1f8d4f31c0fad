"""Tasks hold at most so many bytes together, in the order in which they ask."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from projector.byte_budget import ByteBudget


@given(st.lists(st.tuples(st.integers(0, 15), st.integers(0, 15)), max_size=20))
@pytest.mark.bound("projector", "batches that are being folded and written, of all read models in one kind of store")
def test_no_more_is_held_than_there_is_and_everyone_gets_some(sizes: list[tuple[int, int]]) -> None:
    asyncio.run(_hold_all(sizes))


async def _hold_all(sizes: list[tuple[int, int]]) -> None:
    budget = ByteBudget(10)
    began: list[int] = []

    async def use(number: int, size: int, later: int) -> None:
        async with budget.hold(size) as held:
            began.append(number)
            assert 0 <= budget.free <= 10
            assert held.size == min(size, 10)
            await asyncio.sleep(0)
            held.shrink(later)
            assert held.size == min(size, later, 10)
            await asyncio.sleep(0)

    await asyncio.gather(*(use(number, *size) for number, size in enumerate(sizes)))
    assert began == [*range(len(sizes))]
    assert budget.free == 10


async def test_one_that_gives_up_waiting_does_not_keep_the_next_from_it() -> None:
    budget = ByteBudget(10)
    async with budget.hold(10):
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.01), budget.hold(5):
                pass
    async with budget.hold(10):
        assert budget.free == 0
