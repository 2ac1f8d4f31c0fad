"""The orders projection: given a document and an event, then this document and these index entries."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from projector.projection import OutOfOrder
from projector.projections.orders import ORDERS
from projector.routing import record
from shared.aggregates.order import (
    FulfilmentStatus,
    LineQuantity,
    OrderCancelled,
    OrderDelivered,
    OrderDocument,
    OrderEvent,
    OrderItemAdded,
    OrderItemRemoved,
    OrderLine,
    OrderStatus,
    PaymentStatus,
    ShippingAddressChanged,
)
from shared.aggregates.order.document import Cancellation, OrderItem, OrderPayment, OrderShipment
from shared.read_models.keys import is_index_entry, sort_key
from tests.orders import LAMP, MUG, TOTAL, cancelled, paid, placed, shipped
from tests.projector.histories import recorded, stored

NOON = datetime(2011, 1, 4, 12, 0, tzinfo=UTC)


def after(*events: OrderEvent) -> OrderDocument:
    """The document of order 42 after the events, an hour apart from noon on."""
    document: OrderDocument | None = None
    for version, event in enumerate(events, start=1):
        at = NOON + timedelta(hours=version - 1)
        document = ORDERS.apply("42", document, recorded(event, version, 100 + version, at))
    assert document is not None
    return document


def test_a_placed_order_is_pending_with_its_lines_and_total() -> None:
    assert after(placed()) == OrderDocument(
        order_id="42",
        customer_id="alice",
        status=OrderStatus.PENDING,
        currency="GBP",
        currency_exponent=2,
        total_amount=TOTAL,
        item_count=2,
        items=(OrderItem("1", "MUG", "Mug", 2, 450, 900), OrderItem("2", "LAMP", "Lamp", 1, 2_599, 2_599)),
        charges=(),
        shipping_address_id="home",
        shipping_address=None,
        tracking_number=None,
        payment_status=PaymentStatus.UNPAID,
        fulfilment_status=FulfilmentStatus.UNFULFILLED,
        on_hold=False,
        hold_reason=None,
        amount_payable=TOTAL,
        amount_authorised=0,
        amount_paid=0,
        amount_refunded=0,
        amount_due=TOTAL,
        refund_due=0,
        payments=(),
        refunds=(),
        shipments=(),
        returns=(),
        cancellation=None,
        external_reference=None,
        note=None,
        metadata=None,
        placed_at=NOON,
        confirmed_at=None,
        shipped_at=None,
        delivered_at=None,
        last_event_at=NOON,
        version=1,
    )


def test_the_document_has_the_fields_of_the_contract_in_its_order() -> None:
    document = msgspec.json.decode(msgspec.json.encode(after(placed(MUG))))

    assert list(document.items()) == [
        ("order_id", "42"),
        ("customer_id", "alice"),
        ("status", "PENDING"),
        ("currency", "GBP"),
        ("currency_exponent", 2),
        ("total_amount", 900),
        ("item_count", 1),
        (
            "items",
            [
                {
                    "line_id": "1",
                    "product_id": "MUG",
                    "product_name": "Mug",
                    "quantity": 2,
                    "unit_price": 450,
                    "line_total": 900,
                }
            ],
        ),
        ("charges", []),
        ("shipping_address_id", "home"),
        ("shipping_address", None),
        ("tracking_number", None),
        ("payment_status", "unpaid"),
        ("fulfilment_status", "unfulfilled"),
        ("on_hold", False),
        ("hold_reason", None),
        ("amount_payable", 900),
        ("amount_authorised", 0),
        ("amount_paid", 0),
        ("amount_refunded", 0),
        ("amount_due", 900),
        ("refund_due", 0),
        ("payments", []),
        ("refunds", []),
        ("shipments", []),
        ("returns", []),
        ("cancellation", None),
        ("external_reference", None),
        ("note", None),
        ("metadata", None),
        ("placed_at", "2011-01-04T12:00:00Z"),
        ("confirmed_at", None),
        ("shipped_at", None),
        ("delivered_at", None),
        ("last_event_at", "2011-01-04T12:00:00Z"),
        ("version", 1),
    ]


def test_the_summary_is_the_document_without_its_details() -> None:
    document = after(placed(), paid(), shipped())

    assert ORDERS.summary is not None
    summary = msgspec.to_builtins(ORDERS.summary(document))
    assert [*summary] == [
        "order_id",
        "customer_id",
        "status",
        "currency",
        "currency_exponent",
        "total_amount",
        "item_count",
        "placed_at",
        "last_event_at",
        "version",
    ]
    assert summary.items() <= msgspec.to_builtins(document).items()


def test_an_added_line_counts_even_when_the_product_is_there_already() -> None:
    document = after(placed(MUG), OrderItemAdded(OrderLine("MUG", 1, 500)))

    assert document.items == (OrderItem("1", "MUG", "Mug", 2, 450, 900), OrderItem("2", "MUG", None, 1, 500, 500))
    assert (document.item_count, document.total_amount) == (2, 1_400)


def test_removing_a_product_takes_every_line_of_it() -> None:
    document = after(placed(MUG, LAMP), OrderItemAdded(MUG), OrderItemRemoved("MUG"))

    assert [item.product_id for item in document.items] == ["LAMP"]
    assert (document.item_count, document.total_amount) == (1, 2_599)


def test_the_shipping_address_changes() -> None:
    assert after(placed(), ShippingAddressChanged("office", "moved")).shipping_address_id == "office"


@pytest.mark.parametrize(
    ("events", "status"),
    [
        ((paid(),), OrderStatus.CONFIRMED),
        ((paid(), shipped()), OrderStatus.SHIPPED),
        ((paid(), shipped(), OrderDelivered()), OrderStatus.DELIVERED),
        ((OrderCancelled("changed my mind", 0),), OrderStatus.CANCELLED),
    ],
)
def test_the_status_follows_the_events(events: tuple[OrderEvent, ...], status: OrderStatus) -> None:
    assert after(placed(), *events).status == status


def test_shipping_gives_the_tracking_number() -> None:
    assert after(placed(), paid(), shipped()).tracking_number == "track-1"


HOUR = timedelta(hours=1)
PAID_AT_ONE = OrderPayment("pay-1", None, None, TOTAL, TOTAL, 0, 0, None, NOON + HOUR, None)


def test_a_paid_order_shows_its_payment() -> None:
    document = after(placed(), paid())

    assert (document.payment_status, document.amount_paid, document.amount_due) == (PaymentStatus.PAID, TOTAL, 0)
    assert document.payments == (PAID_AT_ONE,)
    assert document.confirmed_at == NOON + HOUR


def test_a_shipped_order_shows_its_shipment_and_a_delivered_one_when_that_arrived() -> None:
    shipment = after(placed(), paid(), shipped())
    delivery = after(placed(), paid(), shipped(), OrderDelivered())

    assert shipment.fulfilment_status == FulfilmentStatus.SHIPPED
    pieces = LineQuantity("1", 2), LineQuantity("2", 1)
    on_the_way = OrderShipment("1", "track-1", "Royal Mail", pieces, NOON + 2 * HOUR, None)
    assert shipment.shipments == (on_the_way,)
    assert (shipment.shipped_at, shipment.delivered_at) == (NOON + 2 * HOUR, None)
    assert delivery.fulfilment_status == FulfilmentStatus.DELIVERED
    assert delivery.shipments == (msgspec.structs.replace(on_the_way, delivered_at=NOON + 3 * HOUR),)
    assert (delivery.shipped_at, delivery.delivered_at) == (NOON + 2 * HOUR, NOON + 3 * HOUR)


def test_a_cancelled_order_says_why_and_what_is_owed_back() -> None:
    unpaid = after(placed(), OrderCancelled("ordered twice", 0))
    refundable = after(placed(), paid(), OrderCancelled("ordered twice", TOTAL))

    assert unpaid.cancellation == Cancellation("ordered twice", NOON + HOUR)
    assert (unpaid.payment_status, unpaid.amount_due, unpaid.refund_due) == (PaymentStatus.UNPAID, 0, 0)
    assert (refundable.payment_status, refundable.refund_due) == (PaymentStatus.REFUND_DUE, TOTAL)
    assert refundable.payments == (PAID_AT_ONE,)


def test_what_is_due_follows_the_lines() -> None:
    document = after(placed(MUG, LAMP), OrderItemAdded(MUG), OrderItemRemoved("LAMP"))

    assert document.total_amount == document.amount_due == 1_800


@pytest.mark.parametrize(
    ("before", "due"), [((cancelled(),), 0), ((cancelled(), paid()), 0), ((paid(),), MUG.quantity * MUG.unit_price)]
)
def test_what_is_due_follows_any_events_in_any_order(before: tuple[OrderEvent, ...], due: int) -> None:
    """The projection checks no rule."""
    assert after(placed(), *before, OrderItemAdded(MUG)).amount_due == due


@pytest.mark.parametrize(("currency", "exponent"), [("JPY", 0), ("GBP", 2), ("IDR", 2), ("KWD", 3)])
def test_the_document_says_how_many_digits_the_minor_unit_has(currency: str, exponent: int) -> None:
    document = after(placed(currency=currency))

    assert ORDERS.summary is not None
    assert (document.currency_exponent, ORDERS.summary(document).currency_exponent) == (exponent, exponent)  # type: ignore[attr-defined]


def test_every_event_moves_version_and_time_but_not_when_it_was_placed() -> None:
    document = after(placed(), paid(), shipped())

    assert document.version == 3
    assert document.placed_at == NOON
    assert document.last_event_at == NOON + timedelta(hours=2)


@pytest.mark.parametrize("version", [1, 3])
def test_an_event_that_does_not_continue_the_stream_stops_the_projection(version: int) -> None:
    with pytest.raises(OutOfOrder):
        ORDERS.apply("42", after(placed()), recorded(paid(), version, 102, NOON))


def test_a_stream_that_does_not_begin_with_its_placing_stops_the_projection() -> None:
    with pytest.raises(OutOfOrder):
        ORDERS.apply("42", None, recorded(paid(), 1, 101, NOON))


def test_an_order_placed_twice_stops_the_projection() -> None:
    with pytest.raises(OutOfOrder):
        ORDERS.apply("42", after(placed()), recorded(placed(), 2, 102, NOON))


def test_other_streams_are_not_read() -> None:
    of_order = stored(placed(), "42", 1, 1)

    assert [*ORDERS.route(record(of_order))] == ["42"]
    assert [*ORDERS.route(record(of_order._replace(stream_id="customer-42")))] == []


def test_an_order_is_listed_by_customer_by_status_and_among_all() -> None:
    place = sort_key(NOON, "42")

    assert ORDERS.entries(after(placed(), paid())) == {
        ("all", place),
        ("status:CONFIRMED", place),
        ("customer:alice", place),
        ("customer:alice:status:CONFIRMED", place),
    }


def test_places_sort_by_time_and_then_by_id_as_text() -> None:
    moments = [
        datetime(1, 1, 1, tzinfo=UTC),
        datetime(1969, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
        NOON,
        NOON + timedelta(microseconds=1),
        datetime(9999, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    ]
    places = [sort_key(at, order_id) for at in moments for order_id in ("10", "9", "a", "aa")]

    assert sorted(places) == places
    assert all(map(is_index_entry, places))
