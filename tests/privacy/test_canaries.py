"""Nothing that a customer gave is in any store in plain text, and after the erasure nothing opens it any more.

What a running stack writes to files is searched in `tests/stack/test_erasure.py`.
"""

from __future__ import annotations

from typing import Any, TypeAlias

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from shared.settings import Settings
from tests.customers import (
    ADDRESS,
    NOTE,
    ORDERS_ADDRESS,
    REASONS,
    erase,
    found,
    orders_in_every_state,
    register,
    shown,
)
from tests.given_when_then import problem
from tests.independent_folds import assert_read_models_equal_the_log
from tests.orders import order_body
from tests.query_service.event_source import following
from tests.running import eventually, settings_for

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Shop: TypeAlias = tuple[httpx.AsyncClient, httpx.AsyncClient]

CUSTOMER = "ada"
STATES = ("pending", "voided", "confirmed", "shipped", "delivered", "cancelled")


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    """With a snapshot after every second event."""
    return settings_for(database_url, redis_url, snapshot_every_events=2)


async def place_orders(commands: httpx.AsyncClient) -> str:
    """The token of the last acknowledgement."""
    token = ""
    for method, path, body in orders_in_every_state(CUSTOMER):
        answer = await commands.request(method, path, json=body)
        assert answer.is_success, (path, answer.text)
        token = answer.json()["consistency_token"]
    return token


async def order(queries: httpx.AsyncClient, state: str, **asked: Any) -> dict[str, Any]:
    answer = await queries.get(f"/orders/{CUSTOMER}-{state}", **asked)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document


@pytest.mark.promise("privacy", "After an erasure no store holds, and no answer shows, what the customer gave")
async def test_after_an_erasure_nothing_that_the_customer_gave_is_anywhere(
    shop: Shop, database_url: str, redis_url: str, connection: Connection, redis: Redis
) -> None:
    commands, queries = shop
    await register(commands, CUSTOMER)
    token = {"Consistency-Token": await place_orders(commands)}
    before = {state: await order(queries, state, headers=token) for state in STATES}
    etags = {state: (await queries.get(f"/orders/{CUSTOMER}-{state}")).headers["ETag"] for state in STATES}
    assert before["pending"]["shipping_address"] == ORDERS_ADDRESS
    assert (before["shipped"]["note"], before["pending"]["hold_reason"]) == (NOTE, REASONS["hold"])
    assert before["cancelled"]["cancellation"]["reason"] == REASONS["cancel"]
    assert await connection.fetchval("select count(*) from snapshots") > 0
    assert found(await everything(connection, redis)) == []
    await assert_read_models_equal_the_log(database_url, redis_url)

    async with (
        following(queries, f"/customers/{CUSTOMER}/orders/events", last_id=0) as orders_events,
        following(queries, "/events", last_id=0, Accept="text/event-stream") as events,
    ):
        token = {"Consistency-Token": await erase(commands, CUSTOMER)}
        await eventually(lambda: _is_erased(queries))
        assert (await shown(queries, CUSTOMER, token["Consistency-Token"]))["status"] == "erased"
        answers = [repr(orders_events.messages), repr(events.messages)]

    for state in STATES:
        now = await order(queries, state, headers={**token, "If-None-Match": etags[state]})
        assert now == without_person(before[state])
        as_of = before[state]["last_event_at"]
        assert await order(queries, state, params={"as_of": as_of}, headers=token) == now
    ids = ",".join(f"{CUSTOMER}-{state}" for state in STATES)
    histories = [f"/orders/{CUSTOMER}-{state}/history" for state in STATES]
    person = f"/customers/{CUSTOMER}"
    for path in (
        "/events",
        "/orders",
        f"/orders?ids={ids}",
        person,
        f"{person}/history",
        f"{person}/orders",
        *histories,
    ):
        answer = await queries.get(path)
        assert answer.status_code == 200, answer.text
        answers += [answer.text]
    assert found(answers) == []
    assert found(await everything(connection, redis)) == []


async def _is_erased(queries: httpx.AsyncClient) -> bool:
    return (await order(queries, "pending"))["shipping_address"] is None


def without_person(document: dict[str, Any]) -> dict[str, Any]:
    """As the order is shown once its customer is erased."""
    cancellation = document["cancellation"]
    return {
        **document,
        "shipping_address": None,
        "note": None,
        "hold_reason": None,
        "refunds": [{**refund, "reason": None} for refund in document["refunds"]],
        "returns": [{**returned, "reason": None} for returned in document["returns"]],
        "cancellation": cancellation and {**cancellation, "reason": None},
    }


async def test_of_an_erased_customer_orders_go_on_without_the_person(shop: Shop) -> None:
    commands, queries = shop
    body = order_body(customer_id=CUSTOMER, order_id=f"{CUSTOMER}-pending", shipping_address=ADDRESS)
    assert (await commands.post("/orders", json=body)).status_code == 201
    await erase(commands, CUSTOMER)
    again = {"customer_id": CUSTOMER, "order_id": "another"}
    refused = await commands.post("/orders", json=order_body(**again, note=NOTE))
    problem(refused, 409, "customer-erased")
    moved = {"shipping_address_id": "office", "shipping_address": ADDRESS}
    refused = await commands.put(f"/orders/{CUSTOMER}-pending/shipping-address", json=moved)
    problem(refused, 409, "customer-erased")
    assert (await commands.post("/orders", json=order_body(**again))).status_code == 201
    cancelled = await commands.post(f"/orders/{CUSTOMER}-pending/cancellation", json={"reason": REASONS["cancel"]})
    assert cancelled.status_code == 200, cancelled.text
    headers = {"Consistency-Token": cancelled.json()["consistency_token"]}
    after = await order(queries, "pending", headers=headers)
    assert (after["status"], after["cancellation"]["reason"]) == ("CANCELLED", None)


@pytest.mark.promise("privacy", "A second registration under the id opens nothing of the person before")
async def test_a_second_registration_opens_nothing_of_the_first(shop: Shop) -> None:
    commands, queries = shop
    body = order_body(customer_id=CUSTOMER, order_id=f"{CUSTOMER}-first", shipping_address=ORDERS_ADDRESS, note=NOTE)
    await register(commands, CUSTOMER)
    assert (await commands.post("/orders", json=body)).status_code == 201
    await erase(commands, CUSTOMER)
    await register(commands, CUSTOMER, name="Eve")
    note = "ring twice"
    body = order_body(customer_id=CUSTOMER, order_id=f"{CUSTOMER}-second", shipping_address=ADDRESS, note=note)
    placed = await commands.post("/orders", json=body)
    assert placed.status_code == 201, placed.text
    token = {"Consistency-Token": placed.json()["consistency_token"]}
    second = await order(queries, "second", headers=token)
    assert (second["shipping_address"], second["note"]) == (ADDRESS, note)
    await eventually(lambda: _shows_no_texts(queries, token))


async def _shows_no_texts(queries: httpx.AsyncClient, token: dict[str, str]) -> bool:
    first = await order(queries, "first", headers=token)
    return (first["shipping_address"], first["note"]) == (None, None)


async def everything(connection: asyncpg.Connection[asyncpg.Record], redis: Redis) -> list[str]:
    """All rows of all tables, and all keys of Redis with what they hold."""
    tables = await connection.fetch(
        "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
    )
    found = [str(row) for (name,) in tables for row in await connection.fetch(f"select t::text from {name} t")]
    async for key in redis.scan_iter():
        found.append(repr(key) + repr(await redis.dump(key)))
        match await redis.type(key):
            case b"hash":
                found.append(repr(await redis.hgetall(key)))
            case b"string":
                found.append(repr(await redis.get(key)))
            case b"zset":
                found.append(repr(await redis.zrange(key, 0, -1)))
            case b"set":
                found.append(repr(await redis.smembers(key)))
            case b"stream":
                found.append(repr(await redis.xrange(key)))
            case b"list":
                found.append(repr(await redis.lrange(key, 0, -1)))
    return found
