"""GET /orders/{order_id}."""

from __future__ import annotations

from datetime import UTC, datetime

import httpx

from shared.aggregates.order import ORDER
from shared.eventstore.token import ConsistencyToken
from tests.orders import TOTAL, paid, placed, shipped
from tests.query_service.reads import etag, get, token_now
from tests.recording import Recorder


async def test_shows_the_order(queries: httpx.AsyncClient, recorder: Recorder) -> None:
    at = datetime(2010, 12, 1, 8, 26, tzinfo=UTC)
    await recorder.record("42", placed(), paid(), shipped(), occurred_at=at)

    answer = await get(queries, "/orders/42", recorder)

    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "order_id": "42",
        "customer_id": "alice",
        "status": "SHIPPED",
        "currency": "GBP",
        "currency_exponent": 2,
        "total_amount": TOTAL,
        "item_count": 2,
        "items": [
            {
                "line_id": "1",
                "product_id": "MUG",
                "product_name": "Mug",
                "quantity": 2,
                "unit_price": 450,
                "line_total": 900,
            },
            {
                "line_id": "2",
                "product_id": "LAMP",
                "product_name": "Lamp",
                "quantity": 1,
                "unit_price": 2_599,
                "line_total": 2_599,
            },
        ],
        "charges": [],
        "shipping_address_id": "home",
        "shipping_address": None,
        "tracking_number": "track-1",
        "payment_status": "paid",
        "fulfilment_status": "shipped",
        "on_hold": False,
        "hold_reason": None,
        "amount_payable": TOTAL,
        "amount_authorised": 0,
        "amount_paid": TOTAL,
        "amount_refunded": 0,
        "amount_due": 0,
        "refund_due": 0,
        "payments": [
            {
                "payment_reference": "pay-1",
                "method": None,
                "account_id": None,
                "amount": TOTAL,
                "amount_captured": TOTAL,
                "amount_voided": 0,
                "amount_refunded": 0,
                "authorised_at": None,
                "captured_at": "2010-12-01T08:26:00Z",
                "voided_at": None,
            }
        ],
        "refunds": [],
        "returns": [],
        "external_reference": None,
        "note": None,
        "metadata": None,
        "shipments": [
            {
                "shipment_id": "1",
                "tracking_number": "track-1",
                "carrier": "Royal Mail",
                "lines": [{"line_id": "1", "quantity": 2}, {"line_id": "2", "quantity": 1}],
                "shipped_at": "2010-12-01T08:26:00Z",
                "delivered_at": None,
            }
        ],
        "cancellation": None,
        "placed_at": "2010-12-01T08:26:00Z",
        "confirmed_at": "2010-12-01T08:26:00Z",
        "shipped_at": "2010-12-01T08:26:00Z",
        "delivered_at": None,
        "last_event_at": "2010-12-01T08:26:00Z",
        "version": 3,
    }


async def test_carries_its_version_and_the_position_of_the_log_that_it_shows(
    queries: httpx.AsyncClient, recorder: Recorder
) -> None:
    await recorder.record("42", placed(), paid())

    answer = await get(queries, "/orders/42", recorder)

    token = await token_now(recorder)
    assert (answer.headers["etag"], answer.headers["consistency-token"]) == (etag(2, token), token)


async def test_an_order_that_does_not_exist_is_404_as_of_a_position_of_the_log(
    queries: httpx.AsyncClient, recorder: Recorder
) -> None:
    await recorder.record("42", placed())

    answer = await get(queries, "/orders/43", recorder)

    assert answer.status_code == 404
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["code"] == "order-not-found"
    assert ConsistencyToken.decode(answer.headers["consistency-token"]).position == 1


async def test_what_cannot_be_an_id_is_refused(queries_alone: httpx.AsyncClient) -> None:
    for order_id in ("a%20b", "a:b", "ä", "x" * 65, "42%0a"):
        answer = await queries_alone.get(f"/orders/{order_id}")

        assert (answer.status_code, answer.json()["code"]) == (422, "invalid-request"), order_id
        assert answer.json()["errors"][0]["pointer"] == "path/order_id"


async def test_an_unknown_parameter_is_refused_rather_than_ignored(
    queries: httpx.AsyncClient, recorder: Recorder
) -> None:
    await recorder.record("42", placed())

    answer = await queries.get("/orders/42?version=1")

    assert (answer.status_code, answer.json()["code"]) == (400, "malformed-query")
    assert answer.json()["parameter"] == "version"


async def test_a_client_that_has_the_current_version_gets_304(queries: httpx.AsyncClient, recorder: Recorder) -> None:
    await recorder.record("42", placed(), paid())

    token = await token_now(recorder)
    answer = await get(queries, "/orders/42", recorder, If_None_Match=f"W/{etag(2, token)}")

    assert answer.status_code == 304
    assert answer.content == b""
    assert (answer.headers["etag"], answer.headers["consistency-token"]) == (etag(2, token), token)


async def test_a_client_that_has_another_version_gets_the_order(queries: httpx.AsyncClient, recorder: Recorder) -> None:
    await recorder.record("42", placed(), paid())

    token = await token_now(recorder)
    other_log = etag(2, "0" * 32)
    for other in (etag(1, token), '"2"', other_log, etag(2, token, ORDER.document_version - 1)):
        answer = await get(queries, "/orders/42", recorder, If_None_Match=other)

        assert (answer.status_code, answer.json()["version"]) == (200, 2), other


async def test_no_client_has_an_order_that_does_not_exist(queries: httpx.AsyncClient, recorder: Recorder) -> None:
    assert (await get(queries, "/orders/42", recorder, If_None_Match="*")).status_code == 404
