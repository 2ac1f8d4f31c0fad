"""The names of the indexes of the orders read model. Ids hold no colon, so the names cannot collide."""

from __future__ import annotations

from shared.aggregates.order import OrderStatus

ALL = "all"


def with_status(status: OrderStatus) -> str:
    return f"status:{status.value}"


def of_customer(customer_id: str) -> str:
    return f"customer:{customer_id}"


def of_customer_with_status(customer_id: str, status: OrderStatus) -> str:
    return f"customer:{customer_id}:status:{status.value}"
