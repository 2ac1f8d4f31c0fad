"""Revenue by the day orders were placed (UTC), their currency and their present status.

The document is one order's share, small, so that the next event of the order can take it from one line to another.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, date
from functools import partial
from typing import assert_never

import msgspec
from msgspec.structs import replace

from projector.projection import Contribution, Entry, Projection, RecordedEvent, Rollup
from projector.projections.order_streams import check_continues, route
from shared.aggregates.order import (
    OrderCancelled,
    OrderDelivered,
    OrderEvent,
    OrderItemAdded,
    OrderItemRemoved,
    OrderLine,
    OrderPlaced,
    OrderShipped,
    OrderStatus,
    PaymentConfirmed,
    ShippingAddressChanged,
)

REVENUE = Rollup("revenue_by_day", ("day", "currency", "status"), ("orders", "placed", "paid", "cancelled"))


class OrderRevenue(msgspec.Struct, frozen=True):
    """Amounts are in minor units of the currency."""

    day: date
    currency: str
    status: OrderStatus
    totals: dict[str, int]  # product -> what its lines cost
    paid: int
    version: int


def apply(order_id: str, document: OrderRevenue | None, recorded: RecordedEvent[OrderEvent]) -> OrderRevenue:
    """The document after the event. Raises `OutOfOrder`."""
    check_continues(order_id, document, recorded)
    event = recorded.event
    if isinstance(event, OrderPlaced):
        day = recorded.occurred_at.astimezone(UTC).date()
        return OrderRevenue(day, event.currency, OrderStatus.PENDING, _add({}, event.items), 0, recorded.version)
    assert document is not None
    after = partial(replace, document, version=recorded.version)
    match event:
        case OrderItemAdded(item):
            return after(totals=_add(document.totals, [item]))
        case OrderItemRemoved(product_id):
            return after(totals={name: total for name, total in document.totals.items() if name != product_id})
        case ShippingAddressChanged():
            return after()
        case PaymentConfirmed(amount=amount):
            return after(status=OrderStatus.CONFIRMED, paid=document.paid + amount)
        case OrderShipped():
            return after(status=OrderStatus.SHIPPED)
        case OrderDelivered():
            return after(status=OrderStatus.DELIVERED)
        case OrderCancelled():
            return after(status=OrderStatus.CANCELLED)
        case _:
            assert_never(event)


def _add(totals: dict[str, int], lines: Iterable[OrderLine]) -> dict[str, int]:
    totals = dict(totals)
    for line in lines:
        totals[line.product_id] = totals.get(line.product_id, 0) + line.quantity * line.unit_price
    return totals


def entries(document: OrderRevenue) -> frozenset[Entry]:
    total = sum(document.totals.values())
    cancelled = total if document.status is OrderStatus.CANCELLED else 0
    key = (document.day.isoformat(), document.currency, document.status)
    return frozenset({(REVENUE.name, Contribution(key, (1, total, document.paid, cancelled)))})


REVENUE_BY_DAY = Projection("revenue_by_day", OrderRevenue, route, apply, entries, rollups=(REVENUE,))
