"""One real change of an event's shape, end to end: OrderPlaced version 1 carried no currency.

The log holds what an old program wrote; every reader of today understands it, and no program rewrites it. That the
projector stops before what it cannot read is tested in tests/projector/test_partition_worker.py.
"""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TypeAlias
from uuid import uuid4

import asyncpg
import httpx
import pytest

from shared.eventstore import log as event_log
from shared.eventstore.append_request import AppendRequest, AppendStatus, NewEvent
from tests.given_when_then import problem
from tests.orders import place

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Shop = tuple[httpx.AsyncClient, httpx.AsyncClient]

OLD = (Path(__file__).parents[1] / "stored_events" / "OrderPlaced.v1.json").read_text()
OLD_TOTAL = 1_530
LONG_AGO = datetime(2010, 12, 1, 8, 26, tzinfo=UTC)


async def record(connection: Connection, order_id: str, event_type: str, schema_version: int, data: str) -> None:
    """Appends an order's first event as another program would: through append_group."""
    event = NewEvent(uuid4(), event_type, schema_version, data, "{}", LONG_AGO)
    [verdict] = await event_log.append_group(
        connection, [AppendRequest.of_stream(f"order-{order_id}", 0, uuid4(), [event])]
    )
    assert verdict.status is AppendStatus.APPENDED


async def test_an_order_of_before_there_were_currencies_lives_on(shop: Shop, connection: Connection) -> None:
    commands, queries = shop
    assert "currency" not in OLD
    await record(connection, "old", "OrderPlaced", 1, OLD)

    # The command side knows its total and goes on from it.
    wrong = await commands.post("/orders/old/payment", json={"payment_reference": "p", "amount": OLD_TOTAL - 1})
    problem(wrong, 409, "payment-amount-mismatch")
    paid = await commands.post("/orders/old/payment", json={"payment_reference": "p", "amount": OLD_TOTAL})
    assert (paid.status_code, paid.json()["version"]) == (200, 2), paid.text

    # The read side shows it in today's shape, now and as it was.
    token = {"Consistency-Token": paid.headers["consistency-token"]}
    now = await queries.get("/orders/old", headers=token)
    then = await queries.get("/orders/old", params={"as_of": LONG_AGO.isoformat()}, headers=token)
    assert now.status_code == then.status_code == 200
    assert now.json()["total_amount"] == then.json()["total_amount"] == OLD_TOTAL
    assert now.json()["currency"] == then.json()["currency"] == "GBP"
    assert (now.json()["status"], then.json()["status"]) == ("CONFIRMED", "PENDING")

    # History shows it as it was written, to the letter.
    history = await queries.get("/orders/old/history", headers=token)
    assert [(event["event_type"], event["schema_version"]) for event in history.json()["events"]] == [
        ("OrderPlaced", 1),
        ("PaymentConfirmed", 1),
    ]
    assert OLD.encode() in history.content


@pytest.mark.parametrize(
    ("event_type", "schema_version", "code"),
    [("OrderPlaced", 4, "unknown-schema-version"), ("OrderGiftWrapped", 1, "unknown-event-type")],
)
async def test_what_a_newer_program_wrote_stops_commands_on_that_order_only(
    event_type: str, schema_version: int, code: str, commands: httpx.AsyncClient, connection: Connection
) -> None:
    await record(connection, "newer", event_type, schema_version, '{"secret": "4711"}')

    for method, path, body in [
        ("POST", "/payment", {"payment_reference": "p", "amount": 1}),
        ("POST", "/delivery", {}),
        ("DELETE", "/items/MUG", None),
    ]:
        refused = await commands.request(method, f"/orders/newer{path}", json=body)
        detail = problem(refused, 500, code)["detail"]
        assert event_type in detail
        assert "4711" not in refused.text
    await place(commands)
    assert await connection.fetchval("select max(version) from events where stream_id = 'order-newer'") == 1
