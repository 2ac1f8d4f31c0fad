"""An order with everything, from its placing to the last refund, through both services."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import httpx

from shared.settings import Settings
from tests.independent_folds import assert_read_models_equal_the_log
from tests.orders import order_body

Shop = tuple[httpx.AsyncClient, httpx.AsyncClient]

CHARGES = [
    {"kind": "shipping", "amount": 500, "label": "Parcel"},
    {"kind": "discount", "amount": -1_000, "label": "WELCOME"},
    {"kind": "tax", "amount": 60, "line_id": "1"},
]
LIFE: list[tuple[str, str, Any]] = [
    ("PUT", "/lines/1", {"quantity": 3}),
    ("POST", "/payments", {"payment_reference": "card-1", "amount": 3_000, "captured": False}),
    ("POST", "/payments", {"payment_reference": "voucher-1", "amount": 509}),
    ("POST", "/hold", {"reason": "the address is checked"}),
    ("DELETE", "/hold", None),
    ("POST", "/payments/card-1/capture", {"amount": 2_000}),
    (
        "POST",
        "/shipments",
        {"shipment_id": "p-1", "tracking_number": "t-1", "lines": [{"line_id": "1", "quantity": 2}]},
    ),
    ("POST", "/shipments/p-1/delivery", None),
    ("POST", "/payments/card-1/capture", None),
    ("POST", "/shipment", {"tracking_number": "t-2"}),
    ("POST", "/payments", {"payment_reference": "late-1", "amount": 77}),
    ("POST", "/returns", {"return_id": "r-1", "lines": [{"line_id": "1", "quantity": 3}], "reason": "too big"}),
    ("POST", "/returns/r-1/receipt", {"lines": [{"line_id": "1", "quantity": 1, "restock": True}]}),
    ("POST", "/returns/r-1/receipt", {"lines": [{"line_id": "1", "quantity": 2, "restock": False}]}),
    ("POST", "/refunds", {"payment_reference": "late-1", "amount": 77, "reason": "paid twice"}),
    ("POST", "/refunds", {"payment_reference": "card-1", "amount": 1_058, "reason": "too big"}),
    ("POST", "/delivery", None),
]


async def test_an_order_with_everything_closes_at_every_version(shop: Shop, stack: Settings) -> None:
    commands, queries = shop
    placed = await commands.post("/orders", json=order_body(order_id="whole", charges=CHARGES, note="ring twice"))
    assert placed.status_code == 201, placed.text
    shown = await show(queries, placed)
    assert (shown["total_amount"], shown["note"]) == (3_499 - 440, "ring twice")
    for method, path, body in LIFE:
        done = await commands.request(method, f"/orders/whole{path}", json=body)
        assert done.status_code == 200, (path, done.text)
        shown = await show(queries, done)
        kept = shown["amount_paid"] - shown["amount_refunded"]
        assert kept == shown["amount_payable"] - shown["amount_due"] + shown["refund_due"], path
        charged = [entry["charged_amount"] for entry in [*shown["items"], *shown["charges"]]]
        assert sum(charged) == shown["total_amount"], path
        then = await queries.get(
            "/orders/whole",
            params={"known_at": datetime.now(UTC).isoformat()},
            headers={"Consistency-Token": done.headers["Consistency-Token"]},
        )
        assert then.json() == shown, path
    names = ("status", "payment_status", "fulfilment_status", "refund_due", "amount_due")
    assert [shown[name] for name in names] == ["DELIVERED", "partly_refunded", "partly_returned", 0, 0]
    assert [line["written_off"] for line in shown["returns"][0]["lines"]] == [2]
    await assert_read_models_equal_the_log(stack.database_url.get_secret_value(), stack.redis_url.get_secret_value())


async def show(queries: httpx.AsyncClient, done: httpx.Response) -> dict[str, Any]:
    answer = await queries.get("/orders/whole", headers={"Consistency-Token": done.headers["Consistency-Token"]})
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    return document
