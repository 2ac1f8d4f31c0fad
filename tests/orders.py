"""Orders for tests: events, commands and request bodies with everything but the point of the test filled in."""

from __future__ import annotations

import itertools
from typing import Any

import httpx

from shared.aggregates.order import (
    OrderCancelled,
    OrderDelivered,
    OrderLine,
    OrderPlaced,
    OrderShipped,
    PaymentConfirmed,
)

_numbers = itertools.count(1)

MUG = OrderLine("MUG", 2, 450, "Mug")
LAMP = OrderLine("LAMP", 1, 2_599, "Lamp")
TOTAL = 2 * 450 + 2_599


def new_order_id() -> str:
    return f"test-order-{next(_numbers)}"


def placed(*items: OrderLine, customer_id: str = "alice", currency: str = "GBP") -> OrderPlaced:
    return OrderPlaced(customer_id, currency, items or (MUG, LAMP), "home")


def paid(amount: int = TOTAL) -> PaymentConfirmed:
    return PaymentConfirmed("pay-1", amount)


def shipped() -> OrderShipped:
    return OrderShipped("track-1", "Royal Mail")


def delivered() -> OrderDelivered:
    return OrderDelivered()


def cancelled(refund_amount: int = 0, reason: str = "ordered twice") -> OrderCancelled:
    return OrderCancelled(reason, refund_amount)


async def place(commands: httpx.AsyncClient, **changes: Any) -> httpx.Response:
    """Places an order; the answer, which acknowledges it."""
    answer = await commands.post("/orders", json=order_body(**changes))
    assert answer.status_code == 201, answer.text
    return answer


def order_body(**changes: Any) -> dict[str, Any]:
    """A valid body of POST /orders."""
    return {
        "customer_id": "alice",
        "currency": "GBP",
        "items": [
            {"product_id": "MUG", "product_name": "Mug", "quantity": 2, "unit_price": 450},
            {"product_id": "LAMP", "product_name": "Lamp", "quantity": 1, "unit_price": 2_599},
        ],
        "shipping_address_id": "home",
        **changes,
    }
