"""The log is restored to an older state under command services that go on running."""

from __future__ import annotations

import asyncpg
import httpx
import pytest

from shared.settings import Settings
from tests.given_when_then import Orders, problem, stored
from tests.orders import TOTAL, order_body, place
from tests.running import free_ports, running_command_service

SHIPMENT = {"tracking_number": "track-1"}
PAYMENT = {"payment_reference": "pay-1", "amount": TOTAL}


async def restore(connection: asyncpg.Connection[asyncpg.Record], position: int) -> None:
    """As a backup of that position would leave it, and what an operator does then."""
    await connection.execute(
        f"""
        alter table events disable trigger all;
        delete from events where position > {position};
        alter table events enable always trigger events_are_immutable;
        update log_head h set position = e.position, hash = e.hash from events e where e.position = {position};
        select give_new_log_id('restored');
        """
    )


@pytest.mark.promise("failures", "No command service decides on a cached state that a restore lost")
async def test_nothing_is_accepted_because_of_a_past_that_the_log_lost(own_orders: Orders, settings: Settings) -> None:
    [port] = free_ports(1)
    async with (
        running_command_service(settings.model_copy(update={"command_port": port})) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as other,
    ):
        placed = await place(own_orders.client)
        order = placed.headers["location"]
        paid = await own_orders.client.post(f"{order}/payment", json=PAYMENT)
        assert paid.json()["version"] == 2

        await restore(own_orders.connection, position=1)
        # Another event takes the place of the payment, which only the first service has in its cache.
        moved = await other.put(f"{order}/shipping-address", json={"shipping_address_id": "elsewhere"})
        assert (moved.status_code, moved.json()["position"]) == (200, 2)

        problem(await own_orders.client.post(f"{order}/shipment", json=SHIPMENT), 409, "order-not-confirmed")
        assert (await own_orders.client.post(f"{order}/payment", json=PAYMENT)).status_code == 200
        history = await stored(own_orders.connection, placed.json()["aggregate_id"])
        assert [e.event_type for e in history] == ["OrderPlaced", "ShippingAddressChanged", "PaymentConfirmed"]


async def test_acknowledgements_name_the_new_id_at_once(own_orders: Orders) -> None:
    first = await place(own_orders.client)
    await own_orders.connection.execute("select give_new_log_id('restored')")
    second = await place(own_orders.client)
    tokens = [answer.json()["consistency_token"].split("-") for answer in (first, second)]
    assert [position for _, position in tokens] == ["1", "2"]
    assert tokens[0][0] != tokens[1][0]


async def test_orders_that_the_log_lost_are_placed_again(own_orders: Orders) -> None:
    await place(own_orders.client)
    body = order_body(order_id="lost")
    assert (await own_orders.client.post("/orders", json=body)).status_code == 201
    await restore(own_orders.connection, position=1)
    assert (await own_orders.client.post("/orders/lost/payment", json=PAYMENT)).status_code == 404
    assert (await own_orders.client.post("/orders", json=body)).status_code == 201
