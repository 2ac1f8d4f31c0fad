"""A small change of a large order writes little."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from tests.orders import order_body

CHANGES = 40
ORDER: dict[str, Any] = {
    "order_id": "large",
    "items": [
        {"product_id": f"P{number}", "product_name": f"a tea cup, größer {number:0160}", "quantity": 1, "unit_price": 1}
        for number in range(2_000)
    ],
}


async def bytes_written(redis: Redis) -> int:
    """What clients have sent to Redis."""
    return int((await redis.info("stats"))["total_net_input_bytes"])


@pytest.mark.promise("read-models", "A small change of the largest order writes a small part of its document")
async def test_a_change_of_the_address_does_not_write_the_lines_again(
    shop: tuple[httpx.AsyncClient, httpx.AsyncClient], redis: Redis
) -> None:
    commands, queries = shop

    async def shown_after(command: httpx.Response) -> dict[str, Any]:
        assert command.is_success, command.text
        token = {"Consistency-Token": command.headers["consistency-token"]}
        shown: dict[str, Any] = (await queries.get("/orders/large", headers=token)).json()
        return shown

    first = await shown_after(await commands.post("/orders", json=order_body(**ORDER)))
    size = len(json.dumps(first))
    assert size > 500_000

    before = await bytes_written(redis)
    for number in range(CHANGES):
        address = {"shipping_address_id": f"address-{number}"}
        shown = await shown_after(await commands.put("/orders/large/shipping-address", json=address))
        changed = {"shipping_address_id", "version", "last_event_at"}
        assert {name for name in first if shown[name] != first[name]} == changed
        assert shown["shipping_address_id"] == f"address-{number}"
    assert await bytes_written(redis) - before < 3 * size

    # One that is shorter, and one that is longer again.
    for number in range(1_950):
        if number % 100 == 0:
            await commands.delete(f"/orders/large/items/P{number}")
    shorter = await shown_after(await commands.delete("/orders/large/items/P1999"))
    assert [line["product_id"] for line in shorter["items"]] == [
        f"P{number}" for number in range(1_999) if number % 100
    ]
    line = {"product_id": "NEW", "product_name": "x" * 190, "quantity": 1, "unit_price": 1}
    longer = await shown_after(await commands.post("/orders/large/items", json=line))
    assert longer["items"][:-1] == shorter["items"]
    assert longer["items"][-1]["product_id"] == "NEW"
