"""Revenue by the day orders were placed (UTC), their currency and their present status.

The document is one order's share, small, so that the next event of the order can take it from one line to another.
"""

from __future__ import annotations

from datetime import UTC, date
from typing import Any

import msgspec
from msgspec.structs import replace

from projector.projection import Contribution, Entry, Projection, RecordedEvent, Rollup
from projector.projections.order_streams import check_continues, route
from shared.aggregates.order import (
    OrderCancelled,
    OrderConfirmed,
    OrderDelivered,
    OrderEvent,
    OrderItemAdded,
    OrderItemRemoved,
    OrderLineQuantityChanged,
    OrderPlaced,
    OrderShipped,
    OrderStatus,
    PaymentCaptured,
    PaymentConfirmed,
    PaymentReceived,
)
from shared.aggregates.order.lines import lines_by_id

REVENUE = Rollup("revenue_by_day", ("day", "currency", "status"), ("orders", "placed", "paid", "cancelled"))


class OrderRevenue(msgspec.Struct, frozen=True, omit_defaults=True):
    """Amounts are in minor units of the currency."""

    day: date
    currency: str
    status: OrderStatus
    totals: dict[str, int]  # product -> what its lines cost, with their charges
    paid: int
    version: int
    charges: int = 0  # of the order


def apply(order_id: str, document: OrderRevenue | None, recorded: RecordedEvent[OrderEvent]) -> OrderRevenue:
    """The document after the event. Raises `OutOfOrder`."""
    check_continues(order_id, document, recorded)
    event = recorded.event
    if isinstance(event, OrderPlaced):
        return _placed(event, recorded)
    assert document is not None
    changes: dict[str, Any] = {}
    if (status := _STATUS_AFTER.get(type(event))) is not None:
        changes["status"] = status
    if isinstance(event, PaymentConfirmed | PaymentReceived | PaymentCaptured):
        changes["paid"] = document.paid + event.amount
    elif isinstance(event, OrderItemAdded):
        changes["totals"] = _add(document.totals, event.item.product_id, event.item.total)
    elif isinstance(event, OrderLineQuantityChanged):
        changes["totals"] = _add(document.totals, event.product_id, event.total_change)
    elif isinstance(event, OrderItemRemoved):
        changes["totals"] = {name: total for name, total in document.totals.items() if name != event.product_id}
    return replace(document, version=recorded.version, **changes)


_STATUS_AFTER: dict[type[Any], OrderStatus] = {
    PaymentConfirmed: OrderStatus.CONFIRMED,
    OrderConfirmed: OrderStatus.CONFIRMED,
    OrderShipped: OrderStatus.SHIPPED,
    OrderDelivered: OrderStatus.DELIVERED,
    OrderCancelled: OrderStatus.CANCELLED,
}


def _placed(event: OrderPlaced, recorded: RecordedEvent[OrderEvent]) -> OrderRevenue:
    totals: dict[str, int] = {}
    for line in event.items:
        totals[line.product_id] = totals.get(line.product_id, 0) + line.total
    charges = 0
    if event.charges:
        lines = lines_by_id(event.items)
        for charge in event.charges:
            if charge.line_id is None:
                charges += charge.amount
            else:
                totals[lines[charge.line_id].product_id] += charge.amount
    day = recorded.occurred_at.astimezone(UTC).date()
    return OrderRevenue(day, event.currency, OrderStatus.PENDING, totals, 0, recorded.version, charges)


def _add(totals: dict[str, int], product_id: str, amount: int) -> dict[str, int]:
    return {**totals, product_id: totals.get(product_id, 0) + amount}


def entries(document: OrderRevenue) -> frozenset[Entry]:
    total = sum(document.totals.values()) + document.charges
    cancelled = total if document.status is OrderStatus.CANCELLED else 0
    key = (document.day.isoformat(), document.currency, document.status)
    return frozenset({(REVENUE.name, Contribution(key, (1, total, document.paid, cancelled)))})


REVENUE_BY_DAY = Projection("revenue_by_day", OrderRevenue, route, apply, entries, rollups=(REVENUE,), version=2)
