"""Place an order, read it with the token: never a 404."""

from __future__ import annotations

import asyncio

import httpx

from tests.orders import order_body

Shop = tuple[httpx.AsyncClient, httpx.AsyncClient]


async def test_a_thousand_orders_are_each_read_with_their_token_at_the_first_try(shop: Shop) -> None:
    commands, queries = shop

    async def place_and_read() -> int:
        placed = await commands.post("/orders", json=order_body())
        token = placed.headers["Consistency-Token"]
        read = await queries.get(placed.headers["Location"], headers={"Consistency-Token": token})
        return read.status_code

    answers: list[int] = []
    for _ in range(50):
        answers += await asyncio.gather(*(place_and_read() for _ in range(20)))
    assert answers == [200] * 1_000


async def test_every_later_version_is_read_with_its_token(shop: Shop) -> None:
    commands, queries = shop
    placed = await commands.post("/orders", json=order_body())
    path = placed.headers["Location"]
    for step, body in [
        ("items", {"product_id": "PEN", "quantity": 1, "unit_price": 100}),
        ("payment", {"payment_reference": "pay", "amount": 2 * 450 + 2_599 + 100}),
        ("shipment", {"tracking_number": "track"}),
        ("delivery", {}),
    ]:
        acknowledged = await commands.post(f"{path}/{step}", json=body)
        token = acknowledged.headers["Consistency-Token"]
        read = await queries.get(path, headers={"Consistency-Token": token})
        assert read.json()["version"] == acknowledged.json()["version"]
        assert read.headers["ETag"] == acknowledged.headers["ETag"]
    assert (await queries.get(path)).json()["status"] == "DELIVERED"
