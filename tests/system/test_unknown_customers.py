"""With `UNKNOWN_CUSTOMERS=refuse`, orders are placed by registered customers with a payment method alone."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from shared.settings import Settings
from tests.customers import METHOD, PERSON, erase
from tests.given_when_then import problem
from tests.orders import order_body
from tests.running import settings_for


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    return settings_for(database_url, redis_url, unknown_customers="refuse")


async def place(commands: httpx.AsyncClient, **changes: str) -> httpx.Response:
    return await commands.post("/orders", json=order_body(customer_id="ada", **changes))


@pytest.mark.promise("commands", "With UNKNOWN_CUSTOMERS=refuse, only customers with a payment method place orders")
async def test_an_order_needs_a_registered_customer_with_a_payment_method(commands: httpx.AsyncClient) -> None:
    problem(await place(commands), 404, "customer-not-found")
    assert (await commands.post("/customers", json={"customer_id": "ada", **PERSON})).status_code == 201
    problem(await place(commands), 409, "no-payment-method")
    assert (await commands.put("/customers/ada/payment-methods/card", json=METHOD)).status_code == 200
    assert (await place(commands, order_id="first")).status_code == 201
    problem(await place(commands, order_id="first"), 409, "order-already-placed")
    await erase(commands, "ada")
    problem(await place(commands), 409, "customer-erased")


async def test_no_order_is_placed_after_the_erasure_of_its_customer(commands: httpx.AsyncClient) -> None:
    """However they come together: the customer's version is checked with the append."""
    assert (await commands.post("/customers", json={"customer_id": "ada", **PERSON})).status_code == 201
    assert (await commands.put("/customers/ada/payment-methods/card", json=METHOD)).status_code == 200
    *orders, erasure = await asyncio.gather(
        *(place(commands, order_id=f"order-{number}") for number in range(20)),
        commands.post("/customers/ada/erasure", json={"reason": "other"}),
    )
    assert erasure.status_code == 200
    for placed in orders:
        if placed.status_code != 201:
            problem(placed, 409, "customer-erased")
        else:
            assert placed.json()["position"] < erasure.json()["position"]
