"""The revenue projection: given a document and an event, then this document and this share in the sums."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest

from projector.projection import Contribution, Entry, OutOfOrder
from projector.projections.revenue_by_day import REVENUE_BY_DAY, OrderRevenue
from projector.routing import record
from shared.aggregates.order import (
    Charge,
    ChargeKind,
    OrderCancelled,
    OrderConfirmed,
    OrderDelivered,
    OrderEvent,
    OrderItemAdded,
    OrderItemRemoved,
    OrderLineQuantityChanged,
    OrderPlaced,
    OrderStatus,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentReceived,
    PaymentRefunded,
    ShippingAddressChanged,
)
from tests.orders import LAMP, MUG, TOTAL, paid, placed, shipped
from tests.projector.histories import recorded, stored

NOON = datetime(2011, 1, 4, 12, 0, tzinfo=UTC)
CHARGED = OrderPlaced(
    "alice",
    "GBP",
    (MUG, LAMP),
    "home",
    (Charge("1", ChargeKind.SHIPPING, 500), Charge("2", ChargeKind.DISCOUNT, -100, None, "1")),
)


def after(*events: OrderEvent, at: datetime = NOON) -> OrderRevenue:
    document: OrderRevenue | None = None
    for version, event in enumerate(events, start=1):
        next_event = recorded(event, version, 100 + version, at + timedelta(days=version - 1))
        document = REVENUE_BY_DAY.apply("42", document, next_event)
    assert document is not None
    return document


def counts_as(status: str, placed: int, paid: int = 0, cancelled: int = 0) -> set[Entry]:
    return {("revenue_by_day", Contribution(("2011-01-04", "GBP", status), (1, placed, paid, cancelled)))}


@pytest.mark.parametrize(
    ("events", "share"),
    [
        ((placed(),), counts_as("PENDING", TOTAL)),
        ((placed(MUG), OrderItemAdded(LAMP)), counts_as("PENDING", TOTAL)),
        ((placed(MUG, LAMP), OrderItemAdded(MUG), OrderItemRemoved("MUG")), counts_as("PENDING", 2_599)),
        ((placed(), ShippingAddressChanged("office")), counts_as("PENDING", TOTAL)),
        ((placed(), OrderLineQuantityChanged("1", "MUG", 3, 2, 450)), counts_as("PENDING", TOTAL + 450)),
        ((CHARGED,), counts_as("PENDING", TOTAL + 500 - 100)),
        ((CHARGED, OrderItemRemoved("MUG")), counts_as("PENDING", 2_599 + 500)),
        ((placed(), paid()), counts_as("CONFIRMED", TOTAL, TOTAL)),
        ((placed(), PaymentAuthorised("a", TOTAL), OrderConfirmed()), counts_as("CONFIRMED", TOTAL)),
        ((placed(), PaymentAuthorised("a", TOTAL), PaymentCaptured("a", 9)), counts_as("PENDING", TOTAL, 9)),
        ((placed(), paid(), PaymentReceived("b", 9)), counts_as("CONFIRMED", TOTAL, TOTAL + 9)),
        ((placed(), paid(), PaymentRefunded("r", "pay-1", 9, "late", 9)), counts_as("CONFIRMED", TOTAL, TOTAL)),
        ((placed(), paid(), shipped()), counts_as("SHIPPED", TOTAL, TOTAL)),
        ((placed(), paid(), shipped(), OrderDelivered()), counts_as("DELIVERED", TOTAL, TOTAL)),
        ((placed(), OrderCancelled("mistake", 0)), counts_as("CANCELLED", TOTAL, 0, TOTAL)),
        ((placed(), paid(), OrderCancelled("mistake", TOTAL)), counts_as("CANCELLED", TOTAL, TOTAL, TOTAL)),
    ],
)
def test_an_order_counts_once_under_the_day_it_was_placed(events: tuple[OrderEvent, ...], share: set[Entry]) -> None:
    assert REVENUE_BY_DAY.entries(after(*events)) == share


def test_the_day_is_that_of_utc() -> None:
    just_after_midnight = datetime(2011, 1, 5, 0, 30, tzinfo=timezone(timedelta(hours=1)))

    assert after(placed(), at=just_after_midnight).day == date(2011, 1, 4)


def test_events_that_do_not_continue_the_stream_stop_the_projection() -> None:
    for document, event, version in ((None, paid(), 1), (after(placed()), paid(), 3), (after(placed()), placed(), 2)):
        with pytest.raises(OutOfOrder):
            REVENUE_BY_DAY.apply("42", document, recorded(event, version, 102, NOON))


def test_other_streams_are_not_read() -> None:
    of_order = stored(placed(), "42", 1, 1)

    assert [*REVENUE_BY_DAY.route(record(of_order))] == ["42"]
    assert [*REVENUE_BY_DAY.route(record(of_order._replace(stream_id="customer-42")))] == []
    assert after(placed()).status is OrderStatus.PENDING
