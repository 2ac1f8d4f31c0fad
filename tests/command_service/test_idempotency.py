"""A repeated request is carried out once, and answered as the first time."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import asyncpg
import httpx
import pytest
from uuid_utils import uuid7

from shared.aggregates.order import PaymentConfirmed
from shared.eventstore import idempotency_keys
from shared.eventstore import log as event_log
from shared.settings import Settings
from tests.given_when_then import Orders, events_of, problem, stored
from tests.orders import TOTAL, new_order_id, order_body, paid, placed, shipped
from tests.recording import put_in_log
from tests.running import eventually, running_command_service

pytestmark = pytest.mark.asyncio(loop_scope="module")

PAYMENT = {"payment_reference": "pay-1", "amount": TOTAL}


@pytest.fixture
def key() -> dict[str, str]:
    """Headers with a fresh Idempotency-Key."""
    return {"Idempotency-Key": str(uuid7())}


@pytest.fixture
def order_id() -> str:
    return new_order_id()


def assert_same_acknowledgement(first: httpx.Response, again: httpx.Response) -> None:
    assert again.headers["idempotent-replayed"] == "true"
    assert "idempotent-replayed" not in first.headers
    assert (again.status_code, again.content) == (first.status_code, first.content)
    for header in ("etag", "consistency-token", "location", "content-type"):
        assert again.headers.get(header) == first.headers.get(header)


@pytest.mark.parametrize("named", [True, False], ids=["with an id of the client's", "with an id of ours"])
async def test_an_order_is_placed_once(orders: Orders, key: dict[str, str], order_id: str, named: bool) -> None:
    body = order_body(order_id=order_id) if named else order_body()
    first, *again = [await orders.client.post("/orders", json=body, headers=key) for _ in range(3)]
    assert first.status_code == 201
    for answer in again:
        assert_same_acknowledgement(first, answer)
    assert await events_of(orders.connection, first.json()["aggregate_id"]) == [placed()]


@pytest.mark.promise("commands", "Requests with the same `Idempotency-Key` are carried out once")
@pytest.mark.parametrize("named", [True, False], ids=["with an id of the client's", "with an id of ours"])
async def test_fifty_at_once_place_one_order(orders: Orders, key: dict[str, str], order_id: str, named: bool) -> None:
    body = order_body(order_id=order_id) if named else order_body()
    before = await event_log.read_head(orders.connection)
    answers = await asyncio.gather(*[orders.client.post("/orders", json=body, headers=key) for _ in range(50)])
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.content for answer in answers}) == 1
    assert sum("idempotent-replayed" not in answer.headers for answer in answers) == 1
    assert await events_of(orders.connection, answers[0].json()["aggregate_id"]) == [placed()]
    assert (await event_log.read_head(orders.connection)).position == before.position + 1


async def test_fifty_at_once_change_an_order_once(orders: Orders, key: dict[str, str], order_id: str) -> None:
    await put_in_log(orders.connection, f"order-{order_id}", placed())
    url, line = f"/orders/{order_id}/items", {"product_id": "PEN", "quantity": 1, "unit_price": 1}
    answers = await asyncio.gather(*[orders.client.post(url, json=line, headers=key) for _ in range(50)])
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert len(await stored(orders.connection, order_id)) == 2


async def test_what_was_right_the_first_time_is_acknowledged_after_the_order_moved_on(
    orders: Orders, key: dict[str, str], order_id: str
) -> None:
    await put_in_log(orders.connection, f"order-{order_id}", placed())
    url, move = f"/orders/{order_id}/shipping-address", {"shipping_address_id": "office"}
    first = await orders.client.put(url, json=move, headers=key)
    assert first.status_code == 200
    await put_in_log(orders.connection, f"order-{order_id}", paid(), shipped(), after=2)
    assert_same_acknowledgement(first, await orders.client.put(url, json=move, headers=key))
    problem(await orders.client.put(url, json=move), 409, "order-not-pending")


async def test_what_was_expected_of_the_version_is_not_expected_again(
    orders: Orders, key: dict[str, str], order_id: str
) -> None:
    await put_in_log(orders.connection, f"order-{order_id}", placed())
    headers = {**key, "If-Match": '"1"'}
    url = f"/orders/{order_id}/payment"
    first, again = [await orders.client.post(url, json=PAYMENT, headers=headers) for _ in range(2)]
    assert_same_acknowledgement(first, again)


async def test_a_command_that_changed_nothing_is_replayed_too(
    orders: Orders, key: dict[str, str], order_id: str
) -> None:
    await put_in_log(orders.connection, f"order-{order_id}", placed())
    url, stay = f"/orders/{order_id}/shipping-address", {"shipping_address_id": "home"}
    first = await orders.client.put(url, json=stay, headers=key)
    assert (first.status_code, first.json()["version"]) == (200, 1)
    await put_in_log(orders.connection, f"order-{order_id}", paid(), after=1)
    assert_same_acknowledgement(first, await orders.client.put(url, json=stay, headers=key))


async def test_what_was_refused_is_decided_again(orders: Orders, key: dict[str, str], order_id: str) -> None:
    url, shipment = f"/orders/{order_id}/shipment", {"tracking_number": "track-1"}
    problem(await orders.client.post(url, json=shipment, headers=key), 404, "order-not-found")
    await put_in_log(orders.connection, f"order-{order_id}", placed())
    problem(await orders.client.post(url, json=shipment, headers=key), 409, "order-not-confirmed")
    await put_in_log(orders.connection, f"order-{order_id}", paid(), after=1)
    answer = await orders.client.post(url, json=shipment, headers=key)
    assert answer.status_code == 200
    assert "idempotent-replayed" not in answer.headers


@pytest.mark.parametrize(
    "spelling",
    [
        lambda body: json.dumps(body, indent=4),
        lambda body: json.dumps(dict(reversed(body.items()))),
        lambda body: json.dumps(body).replace("alice", "\\u0061lice"),
        lambda body: json.dumps({**body, "occurred_at": "2010-12-01T10:26:00+02:00"}),
        lambda body: json.dumps({**body, "occurred_at": "2010-12-01T08:26:00.000Z"}),
        lambda body: json.dumps({**body, "items": [{**line, "product_name": None} for line in body["items"]]}),
    ],
    ids=["indented", "in another order", "escaped", "in another zone", "with a fraction", "with an explicit null"],
)
async def test_another_spelling_is_the_same_request(
    orders: Orders, key: dict[str, str], order_id: str, spelling: Any
) -> None:
    items = [{"product_id": "MUG", "quantity": 2, "unit_price": 450}]
    body = order_body(order_id=order_id, occurred_at="2010-12-01T08:26:00Z", items=items)
    headers = {**key, "Content-Type": "application/json"}
    first = await orders.client.post("/orders", content=json.dumps(body), headers=headers)
    assert_same_acknowledgement(first, await orders.client.post("/orders", content=spelling(body), headers=headers))


async def test_another_spelling_of_the_address_is_the_same_request(
    orders: Orders, key: dict[str, str], order_id: str
) -> None:
    await put_in_log(orders.connection, f"order-{order_id}", placed())
    first = await orders.client.delete(f"/orders/{order_id}/items/MUG", headers=key)
    again = await orders.client.delete(f"/orders/{order_id}/items/%4D%55G", headers=key)
    assert_same_acknowledgement(first, again)


class TestAnotherRequestWithTheSameKeyIsRefused:
    @pytest.mark.parametrize(
        "change",
        [{"customer_id": "bob"}, {"occurred_at": "2010-12-01T08:26:00Z"}, {"order_id": "other"}, {"currency": "EUR"}],
        ids=str,
    )
    async def test_where_the_body_differs(
        self, orders: Orders, key: dict[str, str], order_id: str, change: dict[str, str]
    ) -> None:
        body = order_body(order_id=order_id)
        assert (await orders.client.post("/orders", json=body, headers=key)).status_code == 201
        answer = await orders.client.post("/orders", json={**body, **change}, headers=key)
        problem(answer, 422, "idempotency-key-reused")
        assert await stored(orders.connection, "other") == []

    async def test_where_the_order_or_the_command_or_the_condition_differs(
        self, orders: Orders, key: dict[str, str], order_id: str
    ) -> None:
        other = new_order_id()
        for name in (order_id, other):
            await put_in_log(orders.connection, f"order-{name}", placed())
        url, payment = f"/orders/{order_id}/payment", {**PAYMENT, "payment_reference": order_id}
        assert (await orders.client.post(url, json=payment, headers=key)).status_code == 200
        answers = [
            await orders.client.post(f"/orders/{other}/payment", json=payment, headers=key),
            await orders.client.post(url, json=payment, headers={**key, "If-Match": '"1"'}),
            await orders.client.post(f"/orders/{order_id}/delivery", json={}, headers=key),
            await orders.client.delete(f"/orders/{order_id}/items/MUG", headers=key),
            await orders.client.post("/orders", json=order_body(), headers=key),
        ]
        for answer in answers:
            problem(answer, 422, "idempotency-key-reused")
        assert await events_of(orders.connection, other) == [placed()]
        assert await events_of(orders.connection, order_id) == [placed(), PaymentConfirmed(order_id, TOTAL)]

    async def test_also_where_both_come_at_once(self, orders: Orders, key: dict[str, str]) -> None:
        names = [new_order_id() for _ in range(20)]
        answers = await asyncio.gather(
            *[orders.client.post("/orders", json=order_body(order_id=name), headers=key) for name in names]
        )
        assert sorted(answer.status_code for answer in answers) == [201, *[422] * 19]
        assert sum([len(await stored(orders.connection, name)) for name in names]) == 1


@pytest.mark.promise("commands", "The service purges old `Idempotency-Key`s and no others")
async def test_a_running_service_forgets_old_keys_and_no_others(settings: Settings) -> None:
    quick = Settings.model_validate({**settings.model_dump(), "purge_interval_seconds": 0.05})
    connection = await asyncpg.connect(settings.database_url.get_secret_value())
    async with running_command_service(quick) as url, httpx.AsyncClient(base_url=url) as client:

        async def place(order_id: str) -> httpx.Response:
            headers = {"Idempotency-Key": f"key-{order_id}"}
            return await client.post("/orders", json=order_body(order_id=order_id), headers=headers)

        fresh, old = await place("fresh"), await place("old")
        assert (fresh.status_code, old.status_code) == (201, 201)
        await connection.execute(
            "update idempotency_keys set recorded_at = recorded_at - interval '7 days 1 minute' where key = 'key-old'"
        )
        await eventually(lambda: is_forgotten(connection, "key-old"))
        problem(await place("old"), 409, "order-already-placed")
        assert_same_acknowledgement(fresh, await place("fresh"))
    await connection.close()


async def is_forgotten(connection: asyncpg.Connection[asyncpg.Record], key: str) -> bool:
    return await idempotency_keys.find_key(connection, key) is None


async def test_keys_are_told_apart_by_case_and_may_be_long(orders: Orders) -> None:
    for key in ("k" * 255, "K" * 255, "~!@#$%^&*()"):
        answer = await orders.client.post("/orders", json=order_body(), headers={"Idempotency-Key": key})
        assert answer.status_code == 201
        assert "idempotent-replayed" not in answer.headers


@pytest.mark.promise("commands", "A quoted Idempotency-Key and a bare one are one")
async def test_a_quoted_key_and_a_bare_one_are_one(orders: Orders) -> None:
    key, body = str(uuid7()), order_body()
    answers = [
        await orders.client.post("/orders", json=body, headers={"Idempotency-Key": spelt})
        for spelt in (f'"{key}"', key, f'"{key}"')
    ]
    assert [answer.headers.get("idempotent-replayed") for answer in answers] == [None, "true", "true"]
    assert len({answer.json()["aggregate_id"] for answer in answers}) == 1
