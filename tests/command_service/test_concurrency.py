"""Many commands on one order, through one service and through two that know nothing of each other."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio

from shared.aggregates.order import OrderItemAdded
from shared.settings import Settings
from tests.given_when_then import Orders, events_of, problem, stored
from tests.orders import TOTAL, order_body, place
from tests.running import free_ports, running_command_service

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def orders_settings(orders_settings: Settings) -> Settings:
    """Both services and their clients share an event loop, so on a slow machine some commands would be refused as too
    many; that is tested elsewhere."""
    return orders_settings.model_copy(update={"admission_delay_seconds": 0.0})


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def other(orders_settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A second command service on the same log."""
    [port] = free_ports(1)
    settings = orders_settings.model_copy(update={"command_port": port})
    async with (
        running_command_service(settings) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        yield client


async def new_order(client: httpx.AsyncClient) -> str:
    return str((await place(client)).json()["aggregate_id"])


def line(number: int) -> dict[str, object]:
    return {"product_id": f"PEN-{number}", "quantity": 1, "unit_price": number}


async def assert_each_success_is_one_event(orders: Orders, order_id: str, answers: list[httpx.Response]) -> None:
    history = await stored(orders.connection, order_id)
    assert [event.version for event in history] == list(range(1, len(history) + 1))
    added = [
        event.item.product_id
        for event in await events_of(orders.connection, order_id)
        if isinstance(event, OrderItemAdded)
    ]
    succeeded = {number: answer for number, answer in enumerate(answers) if answer.status_code == 200}
    assert sorted(added) == sorted(f"PEN-{number}" for number in succeeded)
    for number, answer in succeeded.items():
        event = history[answer.json()["version"] - 1]
        assert answer.json()["position"] == event.position
        assert f'"PEN-{number}"' in event.data, "the acknowledgement names the event of its own command"


async def test_two_hundred_commands_on_one_order_all_succeed_one_after_the_other(orders: Orders) -> None:
    order_id = await new_order(orders.client)
    answers = await asyncio.gather(
        *[orders.client.post(f"/orders/{order_id}/items", json=line(number)) for number in range(200)]
    )
    assert {answer.status_code for answer in answers} == {200}
    await assert_each_success_is_one_event(orders, order_id, answers)


async def test_two_hundred_commands_through_two_services_each_succeed_once_or_say_they_did_not(
    orders: Orders, other: httpx.AsyncClient
) -> None:
    order_id = await new_order(orders.client)
    services = itertools.cycle([orders.client, other])
    answers = await asyncio.gather(
        *[next(services).post(f"/orders/{order_id}/items", json=line(number)) for number in range(200)]
    )
    for answer in answers:
        if answer.status_code != 200:
            problem(answer, 409, "version-conflict")
    assert sum(answer.status_code == 200 for answer in answers) >= 100
    await assert_each_success_is_one_event(orders, order_id, answers)


async def test_of_rivals_that_expect_the_same_version_one_wins(orders: Orders, other: httpx.AsyncClient) -> None:
    order_id = await new_order(orders.client)
    for version in range(1, 6):
        services = itertools.cycle([orders.client, other])
        answers = await asyncio.gather(
            *[
                next(services).post(f"/orders/{order_id}/items", json=line(n), headers={"If-Match": f'"{version}"'})
                for n in range(10)
            ]
        )
        assert sorted(answer.status_code for answer in answers) == [200, *[412] * 9]


@pytest.mark.promise("commands", "A cached state never causes a refusal")
async def test_nobody_is_refused_because_of_what_a_service_remembers(orders: Orders, other: httpx.AsyncClient) -> None:
    order_id = await new_order(orders.client)  # the first service caches a PENDING order
    payment = {"payment_reference": "pay-1", "amount": TOTAL}
    assert (await other.post(f"/orders/{order_id}/payment", json=payment)).status_code == 200
    shipment = await orders.client.post(f"/orders/{order_id}/shipment", json={"tracking_number": "track-1"})
    assert shipment.status_code == 200, shipment.text
    delivery = await other.post(f"/orders/{order_id}/delivery", json={})  # this one caches CONFIRMED
    assert delivery.status_code == 200, delivery.text


@pytest.mark.promise("commands", "A cached state never causes an acceptance")
async def test_nothing_is_accepted_because_of_what_a_service_remembers(
    orders: Orders, other: httpx.AsyncClient
) -> None:
    order_id = await new_order(orders.client)
    assert (await other.post(f"/orders/{order_id}/cancellation", json={"reason": "late"})).status_code == 200
    payment = {"payment_reference": "pay-1", "amount": TOTAL}
    problem(await orders.client.post(f"/orders/{order_id}/payment", json=payment), 409, "order-not-pending")
    move = {"shipping_address_id": "home"}  # would change nothing, if the order were still as it is cached
    problem(await orders.client.put(f"/orders/{order_id}/shipping-address", json=move), 409, "order-not-pending")


async def test_an_order_placed_through_both_is_placed_once(orders: Orders, other: httpx.AsyncClient) -> None:
    for number in range(10):
        body = order_body(order_id=f"both-{number}")
        answers = await asyncio.gather(*[client.post("/orders", json=body) for client in (orders.client, other)])
        assert sorted(answer.status_code for answer in answers) == [201, 409]
        assert len(await stored(orders.connection, f"both-{number}")) == 1


async def test_one_key_through_both_is_carried_out_once(orders: Orders, other: httpx.AsyncClient) -> None:
    headers = {"Idempotency-Key": "through-both"}
    services = [orders.client, other] * 25
    answers = await asyncio.gather(*[client.post("/orders", json=order_body(), headers=headers) for client in services])
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
