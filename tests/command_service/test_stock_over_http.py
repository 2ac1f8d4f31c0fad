"""The commands on stock over HTTP, and orders that reserve it, through two command services."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from command_service import reservation_expiry
from shared.aggregates.order import ORDER, Order
from shared.aggregates.stock import STOCK, Stock
from shared.eventstore.snapshots import Snapshots
from shared.eventstore.store import PostgresAppendSession, PostgresEventStore
from shared.settings import Settings
from tests.command_service.processes import handling
from tests.given_when_then import problem
from tests.orders import order_body, place
from tests.recording import Connection
from tests.running import free_ports, running_command_service


@pytest.fixture
async def other(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A second command service on the same log."""
    [port] = free_ports(1)
    changed = settings.model_copy(update={"command_port": port})
    async with running_command_service(changed) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        yield client


async def receive(commands: httpx.AsyncClient, quantity: int, product_id: str = "MUG") -> None:
    answer = await commands.post(f"/products/{product_id}/stock/receipts", json={"quantity": quantity})
    assert answer.status_code == 200, answer.text


async def stock_of(connection: Connection, product_id: str = "MUG") -> Stock:
    loaded = await Snapshots(PostgresEventStore(connection), None).load(STOCK, STOCK.stream_of(product_id))
    assert isinstance(loaded.state, Stock)
    return loaded.state


async def order_of(connection: Connection, order_id: str) -> Order:
    loaded = await Snapshots(PostgresEventStore(connection), None).load(ORDER, ORDER.stream_of(order_id))
    assert isinstance(loaded.state, Order)
    return loaded.state


def mugs(quantity: int) -> list[dict[str, Any]]:
    return [{"product_id": "MUG", "quantity": quantity, "unit_price": 450}]


async def test_stock_is_received_and_adjusted(commands: httpx.AsyncClient, connection: Connection) -> None:
    path = "/products/NAVY MUG/stock"
    body = {"quantity": 5, "reference": "delivery-77"}
    received = await commands.post(f"{path}/receipts", json=body, headers={"Idempotency-Key": "k"})
    assert (received.json()["aggregate_id"], received.json()["version"]) == ("NAVY MUG", 1)
    again = await commands.post(f"{path}/receipts", json=body, headers={"Idempotency-Key": "k"})
    assert again.headers["idempotent-replayed"] == "true"
    lost = await commands.post(f"{path}/adjustments", json={"delta": -2, "reason": "broken"})
    assert lost.json()["version"] == 2
    refused = problem(
        await commands.post(f"{path}/adjustments", json={"delta": -4, "reason": "lost"}), 409, "insufficient-stock"
    )
    assert refused["items"] == [{"product_id": "NAVY MUG", "requested": 4, "available": 3}]
    assert await stock_of(connection, "NAVY MUG") == Stock(on_hand=3)


@pytest.mark.bound("command", "pieces of one receipt or adjustment of stock")
async def test_a_million_pieces_are_received_or_adjusted_at_once_and_no_more(commands: httpx.AsyncClient) -> None:
    for path, body in (("receipts", {"quantity": 10**6}), ("adjustments", {"delta": -(10**6), "reason": "sold off"})):
        url = f"/products/MUG/stock/{path}"
        assert (await commands.post(url, json=body)).status_code == 200
        more = {name: value + (value > 0) - (value < 0) for name, value in body.items() if isinstance(value, int)}
        problem(await commands.post(url, json={**body, **more}), 422, "invalid-request")


async def test_an_order_that_is_refused_names_all_that_is_short(
    commands: httpx.AsyncClient, connection: Connection
) -> None:
    await receive(commands, 1)
    await receive(commands, 5, "LAMP")
    refused = problem(await commands.post("/orders", json=order_body()), 409, "insufficient-stock")
    assert refused["items"] == [{"product_id": "MUG", "requested": 2, "available": 1}]
    assert await stock_of(connection, "LAMP") == Stock(on_hand=5)
    await receive(commands, 1)
    placed = await commands.post("/orders", json=order_body())
    assert (placed.status_code, placed.json()["version"]) == (201, 2)
    assert await stock_of(connection) == Stock(on_hand=2, reserved=2)


async def test_an_order_of_an_earlier_time_reserves_the_stock_of_now(
    commands: httpx.AsyncClient, connection: Connection
) -> None:
    """Else each order of an import would be refused, or the stock be sold before it was received."""
    await receive(commands, 3)
    await place(commands, order_id="early", items=mugs(2), occurred_at="2011-12-09T12:50:00Z")
    years = "select extract(year from max(occurred_at)) from events where stream_id = $1"
    assert await connection.fetchval(years, "order-early") == 2011
    assert await connection.fetchval(years, "stock-MUG") > 2011
    body = {"quantity": 1, "occurred_at": "2011-12-09T12:50:00Z"}
    problem(await commands.post("/products/MUG/stock/receipts", json=body), 409, "occurred-before-previous-event")


async def test_a_service_that_never_saw_the_stock_of_a_product_reserves_it(
    commands: httpx.AsyncClient, other: httpx.AsyncClient, connection: Connection
) -> None:
    """It took the product for one that is not tracked, which it was."""
    await place(other, order_id="before", items=mugs(2))
    await receive(commands, 3)
    await place(other, order_id="after", items=mugs(2))
    assert await stock_of(connection) == Stock(on_hand=3, reserved=2)
    problem(await other.post("/orders", json=order_body(items=mugs(2))), 409, "insufficient-stock")


async def test_orders_race_through_two_services_for_the_last_pieces(
    commands: httpx.AsyncClient, other: httpx.AsyncClient, connection: Connection
) -> None:
    await receive(commands, 7)
    answers = await asyncio.gather(
        *[service.post("/orders", json=order_body(items=mugs(1))) for _ in range(10) for service in (commands, other)]
    )
    placed = [answer for answer in answers if answer.status_code == 201]
    codes = {answer.json()["code"] for answer in answers if answer.status_code != 201}
    assert codes <= {"insufficient-stock", "version-conflict"}
    assert await stock_of(connection) == Stock(on_hand=7, reserved=len(placed))


async def test_a_whole_life_moves_the_stock(commands: httpx.AsyncClient, connection: Connection) -> None:
    await receive(commands, 9)
    order_id = (await place(commands, items=mugs(4))).json()["aggregate_id"]
    for method, path, body, expected in (
        ("PUT", "lines/1", {"quantity": 5}, Stock(9, 5)),
        ("POST", "items", mugs(1)[0], Stock(9, 6)),
        ("DELETE", "hold", None, Stock(9, 6)),
        ("PUT", "lines/2", {"quantity": 0}, Stock(9, 5)),
        ("POST", "payment", {"payment_reference": f"pay-{order_id}", "amount": 5 * 450}, Stock(9, 5)),
        ("POST", "shipments", {"tracking_number": "t", "lines": [{"line_id": "1", "quantity": 2}]}, Stock(7, 3, 2)),
        ("POST", "shipment", {"tracking_number": "t-2"}, Stock(4, 0, 5)),
        (
            "POST",
            "returns",
            {"return_id": "r", "reason": "x", "lines": [{"line_id": "1", "quantity": 2}]},
            Stock(4, 0, 5),
        ),
        ("POST", "returns/r/receipt", {"lines": [{"line_id": "1", "quantity": 1, "restock": True}]}, Stock(5, 0, 4)),
    ):
        answer = await commands.request(method, f"/orders/{order_id}/{path}", json=body)
        assert answer.status_code == 200, answer.text
        assert await stock_of(connection) == expected, path


async def expire(database_url: str, after: timedelta) -> int:
    """Of how many orders, by a process of its own."""

    async def open_session() -> PostgresAppendSession:
        return PostgresAppendSession(await asyncpg.connect(database_url))

    async with (
        asyncpg.create_pool(database_url, min_size=1, max_size=2) as pool,
        handling(PostgresEventStore(pool), open_session) as handler,
    ):
        return await reservation_expiry.expire_due(pool, handler, after)


@pytest.mark.promise(
    "orders", "What an order has reserved expires where it is not confirmed within RESERVATION_MINUTES"
)
async def test_what_is_reserved_expires_unless_the_order_is_confirmed(
    commands: httpx.AsyncClient, connection: Connection, database_url: str
) -> None:
    await receive(commands, 9)
    await place(commands, order_id="late", items=mugs(1))
    await place(commands, order_id="paid", items=mugs(2))
    await commands.post("/orders/paid/payment", json={"payment_reference": "p", "amount": 900})
    await place(commands, order_id="cancelled", items=mugs(3))
    await commands.post("/orders/cancelled/cancellation", json={"reason": "x"})
    assert await expire(database_url, timedelta(minutes=5)) == 0
    assert await stock_of(connection) == Stock(on_hand=9, reserved=3)
    assert await expire(database_url, timedelta(0)) == 1
    assert await stock_of(connection) == Stock(on_hand=9, reserved=2)
    assert (await order_of(connection, "late")).expired_products == ("MUG",)
    assert await expire(database_url, timedelta(0)) == 0
