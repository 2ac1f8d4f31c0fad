"""Place an order, read it with the token: never a 404."""

from __future__ import annotations

import asyncio
from itertools import chain

import httpx
import pytest

from shared.settings import Settings
from tests.orders import place
from tests.running import clients_of

Shop = tuple[httpx.AsyncClient, httpx.AsyncClient]


@pytest.mark.promise("queries", "The answer to a consistency token shows the event that the token names")
async def test_a_thousand_orders_are_each_read_with_their_token_at_the_first_try(stack: Settings) -> None:
    async def order_and_read(times: int) -> list[int]:
        statuses = []
        async with clients_of(stack) as (commands, queries):
            for _ in range(times):
                placed = await place(commands)
                token = placed.headers["Consistency-Token"]
                read = await queries.get(placed.headers["Location"], headers={"Consistency-Token": token})
                statuses.append(read.status_code)
        return statuses

    # Clients of their own: connections that are shared by many cost httpx more than all else here.
    answers = await asyncio.gather(*(order_and_read(50) for _ in range(20)))
    assert list(chain(*answers)) == [200] * 1_000


async def test_every_later_version_is_read_with_its_token(shop: Shop) -> None:
    commands, queries = shop
    placed = await place(commands)
    path, etag = placed.headers["Location"], placed.headers["ETag"]
    for step, body in [
        ("items", {"product_id": "PEN", "quantity": 1, "unit_price": 100}),
        ("payment", {"payment_reference": "pay", "amount": 2 * 450 + 2_599 + 100}),
        ("shipment", {"tracking_number": "track"}),
        ("delivery", {}),
    ]:
        acknowledged = await commands.post(f"{path}/{step}", json=body, headers={"If-Match": etag})
        token = acknowledged.headers["Consistency-Token"]
        read = await queries.get(path, headers={"Consistency-Token": token})
        assert read.json()["version"] == acknowledged.json()["version"]
        etag = read.headers["ETag"]
        assert etag.startswith(acknowledged.headers["ETag"].rstrip('"'))
    assert (await queries.get(path)).json()["status"] == "DELIVERED"
