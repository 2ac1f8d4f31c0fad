"""A projector that is stopped in the middle of a batch and comes back when another has long taken over."""

from __future__ import annotations

import httpx
import pytest

from tests.faults.rigged import PREPARED
from tests.faults.shop import Shop, until_more
from tests.running import eventually


@pytest.mark.parametrize("moment", ["before applying", "while wiping", *PREPARED])
async def test_a_projector_paused_in_a_batch_changes_nothing_when_it_comes_back(moment: str, shop: Shop) -> None:
    await shop.start(shop.command)
    paused = shop.process("projector", f"pause:{moment}")
    customers = shop.customers()
    async with customers.ordering(1):
        await until_more(customers.promises, 20)
        paused.spawn()
        await paused.until_it_is_stopped()
        # Its lease ends although its connection is as open as ever: the server ends a session that asks nothing.
        await shop.start(shop.projector, shop.query)
        left_at: int = customers.promises[-1]["position"]

        async def the_other_has_gone_on() -> bool:
            return min(await positions(shop)) >= left_at

        await eventually(the_other_has_gone_on, seconds=40)
        paused.resume()
        await paused.until_ready()
        await until_more(customers.promises, 20)
    await shop.assert_all_is_well(customers.promises)


async def positions(shop: Shop) -> list[int]:
    """Of every read model."""
    async with httpx.AsyncClient() as client:
        answer = (await client.get(f"{shop.query.url}/projections")).json()
    return [one["checkpoint"] for one in answer["projections"]]
