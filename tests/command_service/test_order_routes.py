"""The commands on lines, payments, parcels and holds over HTTP: each is carried out, or refused with its code."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shared.aggregates.address import Address
from shared.aggregates.order import (
    Charge,
    ChargeKind,
    ItemsShipped,
    LineQuantity,
    OrderConfirmed,
    OrderEvent,
    OrderHeld,
    OrderHoldReleased,
    OrderItemAdded,
    OrderLine,
    OrderLineQuantityChanged,
    OrderPlaced,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentReceived,
    PaymentRefunded,
    PaymentVoided,
    ReceivedLine,
    ReturnReceived,
    ReturnRequested,
    ShipmentDelivered,
    ShippingAddressChanged,
)
from tests.given_when_then import Orders, events_of, problem
from tests.orders import TOTAL, new_order_id, order_body, paid, place, placed, shipped

pytestmark = pytest.mark.asyncio(loop_scope="module")

ADDRESS = {"name": "Ada", "lines": ["12 St James's Square"], "city": "London", "country": "GB"}
PART = ItemsShipped("parcel-1", "track-1", (LineQuantity("1", 1),))
PIECE = [{"line_id": "1", "quantity": 1}]
AUTHORISED = (placed(), PaymentAuthorised("pay-a", TOTAL), OrderConfirmed())
REQUESTED = (placed(), paid(), shipped(), ReturnRequested("back", (LineQuantity("1", 1),), "broken"))


async def test_an_order_is_placed_with_all_that_it_can_have(orders: Orders) -> None:
    order_id = new_order_id()
    line = {"product_id": "MUG", "quantity": 2, "unit_price": 450, "line_id": "a", "sku": "MUG/Grün"}
    body = order_body(
        order_id=order_id,
        items=[{**line, "metadata": {"gift": "yes"}}],
        charges=[
            {"kind": "shipping", "amount": 500, "label": "Parcel"},
            {"charge_id": "w", "kind": "discount", "amount": -100, "line_id": "a"},
        ],
        shipping_address=ADDRESS,
        external_reference="web-4711",
        note="Leave it with the neighbours",
        metadata={"channel": "web"},
    )
    assert (await orders.client.post("/orders", json=body)).status_code == 201
    assert await events_of(orders.connection, order_id) == [
        OrderPlaced(
            "alice",
            "GBP",
            (OrderLine("MUG", 2, 450, None, "a", "MUG/Grün", {"gift": "yes"}),),
            "home",
            (
                Charge("1", ChargeKind.SHIPPING, 500, "Parcel"),
                Charge("w", ChargeKind.DISCOUNT, -100, None, "a"),
            ),
            Address("Ada", ("12 St James's Square",), "London", "GB"),
            "web-4711",
            "Leave it with the neighbours",
            {"channel": "web"},
        )
    ]


async def test_a_plain_order_is_stored_as_small_as_before(orders: Orders) -> None:
    order_id = new_order_id()
    await place(orders.client, order_id=order_id)
    data = await orders.connection.fetchval("select data::text from events where stream_id = $1", f"order-{order_id}")
    assert data == (
        '{"customer_id":"alice","currency":"GBP","items":[{"product_id":"MUG","quantity":2,"unit_price":450,'
        '"product_name":"Mug"},{"product_id":"LAMP","quantity":1,"unit_price":2599,"product_name":"Lamp"}],'
        '"shipping_address_id":"home"}'
    )


CARRIED_OUT: list[tuple[tuple[OrderEvent, ...], str, str, Any, list[OrderEvent]]] = [
    (
        (placed(),),
        "POST",
        "/items",
        {"product_id": "PEN", "quantity": 1, "unit_price": 120, "line_id": "pen", "sku": "P"},
        [OrderItemAdded(OrderLine("PEN", 1, 120, None, "pen", "P"))],
    ),
    ((placed(),), "PUT", "/lines/1", {"quantity": 5}, [OrderLineQuantityChanged("1", "MUG", 5, 2, 1_350)]),
    ((placed(),), "PUT", "/lines/1", {"quantity": 0}, [OrderLineQuantityChanged("1", "MUG", 0, 2, -900)]),
    (
        (placed(),),
        "PUT",
        "/shipping-address",
        {"shipping_address_id": "home", "shipping_address": ADDRESS},
        [ShippingAddressChanged("home", None, Address("Ada", ("12 St James's Square",), "London", "GB"))],
    ),
    (
        (placed(),),
        "POST",
        "/payments",
        {"payment_reference": "routes-1", "amount": TOTAL, "captured": False, "method": "card"},
        [PaymentAuthorised("routes-1", TOTAL, "card"), OrderConfirmed()],
    ),
    (
        (placed(), paid()),
        "POST",
        "/payments",
        {"payment_reference": "routes 2 é", "amount": 1},
        [PaymentReceived("routes 2 é", 1)],
    ),
    (AUTHORISED, "POST", "/payments/pay-a/capture", {"amount": 1}, [PaymentCaptured("pay-a", 1)]),
    (AUTHORISED, "POST", "/payments/pay-a/capture", None, [PaymentCaptured("pay-a", TOTAL)]),
    (AUTHORISED, "POST", "/payments/pay-a/void", {"reason": "late"}, [PaymentVoided("pay-a", TOTAL, "late")]),
    (AUTHORISED, "POST", "/payments/pay-a/void", None, [PaymentVoided("pay-a", TOTAL)]),
    (
        (placed(), paid(), shipped()),
        "POST",
        "/refunds",
        {"refund_id": "r", "payment_reference": "pay-1", "amount": 9, "reason": "late"},
        [PaymentRefunded("r", "pay-1", 9, "late", 9)],
    ),
    (
        (placed(), paid()),
        "POST",
        "/shipments",
        {"shipment_id": "parcel-1", "tracking_number": "track-1", "lines": PIECE},
        [PART],
    ),
    ((placed(), paid(), PART), "POST", "/shipments/parcel-1/delivery", None, [ShipmentDelivered("parcel-1")]),
    (
        (placed(), paid(), shipped()),
        "POST",
        "/returns",
        {"return_id": "back", "lines": PIECE, "reason": "broken"},
        [ReturnRequested("back", (LineQuantity("1", 1),), "broken")],
    ),
    (
        REQUESTED,
        "POST",
        "/returns/back/receipt",
        {"lines": [{"line_id": "1", "quantity": 1, "restock": False}]},
        [ReturnReceived("back", (ReceivedLine("1", 1, restock=False),), 450)],
    ),
    ((placed(),), "POST", "/hold", {"reason": "fraud"}, [OrderHeld("fraud")]),
    ((placed(), OrderHeld("fraud")), "DELETE", "/hold", None, [OrderHoldReleased()]),
]


@pytest.mark.parametrize(("past", "method", "path", "body", "events"), CARRIED_OUT)
async def test_a_command_is_carried_out(
    orders: Orders, past: tuple[OrderEvent, ...], method: str, path: str, body: Any, events: list[OrderEvent]
) -> None:
    await orders.given(*past).when(method, path, body).then_acknowledged(*events)


REFUSED: list[tuple[tuple[OrderEvent, ...], str, str, Any, int, str]] = [
    ((placed(),), "PUT", "/lines/9", {"quantity": 1}, 404, "line-not-found"),
    ((placed(), paid()), "PUT", "/lines/1", {"quantity": 1}, 409, "order-not-pending"),
    ((placed(),), "PUT", "/lines/1", {"quantity": -1}, 422, "invalid-request"),
    (
        (placed(),),
        "POST",
        "/items",
        {"product_id": "PEN", "quantity": 1, "unit_price": 1, "line_id": "1"},
        409,
        "duplicate-line-id",
    ),
    (AUTHORISED, "POST", "/payments/pay-b/capture", None, 404, "payment-not-found"),
    (AUTHORISED, "POST", "/payments/pay-a/capture", {"amount": TOTAL + 1}, 409, "capture-exceeds-authorisation"),
    ((placed(), paid()), "POST", "/payments/pay-1/void", None, 409, "nothing-to-void"),
    (
        AUTHORISED,
        "POST",
        "/payments",
        {"payment_reference": "pay-a", "amount": 1},
        409,
        "payment-already-recorded",
    ),
    ((placed(),), "POST", "/payments", {"payment_reference": "a/b", "amount": 1}, 422, "invalid-request"),
    ((placed(),), "POST", "/payments", {"payment_reference": "a", "amount": 0}, 422, "invalid-request"),
    (
        (placed(), paid()),
        "POST",
        "/refunds",
        {"payment_reference": "pay-1", "amount": TOTAL + 1, "reason": "late"},
        409,
        "refund-exceeds-payment",
    ),
    (
        (*AUTHORISED, PaymentVoided("pay-a", TOTAL)),
        "POST",
        "/shipment",
        {"tracking_number": "t"},
        409,
        "order-not-paid",
    ),
    (
        (placed(), paid()),
        "POST",
        "/shipments",
        {"tracking_number": "t", "lines": [{"line_id": "1", "quantity": 3}]},
        409,
        "shipment-exceeds-order",
    ),
    (
        (placed(), paid(), PART),
        "POST",
        "/shipments",
        {"shipment_id": "parcel-1", "tracking_number": "t", "lines": PIECE},
        409,
        "shipment-already-recorded",
    ),
    ((placed(), paid()), "POST", "/shipments/parcel-1/delivery", None, 404, "shipment-not-found"),
    ((placed(), paid()), "POST", "/returns", {"lines": PIECE, "reason": "broken"}, 409, "return-exceeds-shipment"),
    (
        REQUESTED,
        "POST",
        "/returns",
        {"return_id": "back", "lines": PIECE, "reason": "other"},
        409,
        "return-already-requested",
    ),
    (REQUESTED, "POST", "/returns/b/receipt", {"lines": [{**PIECE[0], "restock": True}]}, 404, "return-not-found"),
    (
        REQUESTED,
        "POST",
        "/returns/back/receipt",
        {"lines": [{"line_id": "1", "quantity": 2, "restock": True}]},
        409,
        "receipt-exceeds-return",
    ),
    ((placed(), paid(), OrderHeld("fraud")), "POST", "/shipment", {"tracking_number": "t"}, 409, "order-on-hold"),
    ((placed(), paid(), shipped()), "POST", "/hold", {"reason": "fraud"}, 409, "order-not-holdable"),
    ((placed(), paid(), PART), "POST", "/cancellation", {"reason": "late"}, 409, "order-partly-shipped"),
]


@pytest.mark.parametrize(("past", "method", "path", "body", "status", "code"), REFUSED)
async def test_a_command_is_refused(
    orders: Orders, past: tuple[OrderEvent, ...], method: str, path: str, body: Any, status: int, code: str
) -> None:
    await orders.given(*past).when(method, path, body).then_refused(status, code)


MUG = {"product_id": "MUG", "quantity": 1, "unit_price": 100}
FEE = {"kind": "fee", "amount": 1}


@pytest.mark.parametrize(
    ("changes", "status", "code"),
    [
        ({"items": [{**MUG, "line_id": "a"}] * 2}, 409, "duplicate-line-id"),
        ({"charges": [{**FEE, "charge_id": "a"}] * 2}, 422, "duplicate-charge-id"),
        ({"charges": [{**FEE, "line_id": "9"}]}, 422, "charge-of-unknown-line"),
        ({"charges": [{"kind": "discount", "amount": -(10**9)}]}, 409, "negative-amount"),
        ({"charges": [{"kind": "discount", "amount": 1}]}, 422, "invalid-request"),
        ({"charges": [{"kind": "fee", "amount": -1}]}, 422, "invalid-request"),
        ({"charges": [FEE] * 2_001}, 422, "invalid-request"),
        ({"shipping_address": {**ADDRESS, "lines": []}}, 422, "invalid-request"),
        ({"shipping_address": {**ADDRESS, "country": "Wales"}}, 422, "invalid-request"),
        ({"metadata": {str(number): "x" for number in range(21)}}, 422, "invalid-request"),
        ({"metadata": {"a b": "x"}}, 422, "invalid-request"),
        ({"items": [{**MUG, "sku": "x" * 65}]}, 422, "invalid-request"),
    ],
    ids=str,
)
async def test_an_order_that_cannot_be_is_refused(
    orders: Orders, changes: dict[str, Any], status: int, code: str
) -> None:
    problem(await orders.client.post("/orders", json=order_body(**changes)), status, code)


@pytest.mark.promise("orders", "A payment reference belongs to one order, also when two record it at the same moment")
@pytest.mark.parametrize("route", ["payment", "payments"])
async def test_of_orders_that_race_for_a_payment_reference_one_gets_it(orders: Orders, route: str) -> None:
    reference = f"race-{route}"
    order_ids = [(await place(orders.client)).json()["aggregate_id"] for _ in range(20)]
    body = {"payment_reference": reference, "amount": TOTAL}
    answers = await asyncio.gather(
        *[orders.client.post(f"/orders/{order_id}/{route}", json=body) for order_id in order_ids]
    )
    refused = [answer for answer in answers if answer.status_code != 200]
    assert len(refused) == 19
    for answer in refused:
        assert problem(answer, 409, "payment-reference-in-use")["payment_reference"] == reference
    paid_for = [order_id for order_id in order_ids if len(await events_of(orders.connection, order_id)) > 1]
    [winner] = paid_for
    again = await orders.client.post(f"/orders/{winner}/{route}", json=body)
    assert again.status_code == 200


async def test_a_payment_and_its_reference_are_appended_together(orders: Orders) -> None:
    order_id = (await place(orders.client)).json()["aggregate_id"]
    body = {"payment_reference": "together", "amount": TOTAL}
    answer = await orders.client.post(f"/orders/{order_id}/payments", json=body)
    rows = await orders.connection.fetch(
        "select stream_id, event_type from events where metadata->>'command_id' = $1 order by position",
        answer.json()["command_id"],
    )
    assert [(row["stream_id"], row["event_type"]) for row in rows] == [
        (f"order-{order_id}", "PaymentReceived"),
        (f"order-{order_id}", "OrderConfirmed"),
        ("payment-together", "PaymentReferenceAssigned"),
    ]
