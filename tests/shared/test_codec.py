from __future__ import annotations

import json
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from shared.aggregates import EVENT_TYPES
from shared.aggregates.address import Address
from shared.aggregates.order import (
    Charge,
    ChargeKind,
    ItemsShipped,
    LineQuantity,
    OrderCancelled,
    OrderConfirmed,
    OrderDelivered,
    OrderEvent,
    OrderHeld,
    OrderHoldReleased,
    OrderItemAdded,
    OrderItemRemoved,
    OrderItemsReserved,
    OrderLine,
    OrderLineQuantityChanged,
    OrderPlaced,
    OrderReservationExpired,
    OrderShipped,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentConfirmed,
    PaymentReceived,
    PaymentRefunded,
    PaymentVoided,
    ReceivedLine,
    ReturnReceived,
    ReturnRequested,
    ShipmentDelivered,
    ShippingAddressChanged,
)
from shared.eventstore import codec
from shared.eventstore.codec import UnknownEventType, UnknownSchemaVersion, UnreadablePayload
from tests.orders import placed

# What JSON in UTF-8 can hold: any text but lone surrogates.
TEXT = st.text(st.characters(exclude_categories=["Cs"]))
AMOUNTS = st.integers(0, 2**53 - 1)
METADATA = st.none() | st.dictionaries(TEXT, TEXT)
LINES = st.builds(OrderLine, TEXT, AMOUNTS, AMOUNTS, *[st.none() | TEXT] * 3, METADATA)
CHARGES = st.builds(Charge, TEXT, st.sampled_from(ChargeKind), AMOUNTS, st.none() | TEXT, st.none() | TEXT)
ADDRESSES = st.none() | st.builds(Address, TEXT, st.lists(TEXT).map(tuple), TEXT, TEXT, *[st.none() | TEXT] * 3)
PIECES = st.lists(st.builds(LineQuantity, TEXT, AMOUNTS)).map(tuple)
RECEIVED = st.lists(st.builds(ReceivedLine, TEXT, AMOUNTS, st.booleans())).map(tuple)
BY_TYPE: dict[type[OrderEvent], st.SearchStrategy[OrderEvent]] = {
    OrderPlaced: st.builds(
        OrderPlaced,
        TEXT,
        TEXT,
        st.lists(LINES).map(tuple),
        TEXT,
        st.lists(CHARGES).map(tuple),
        ADDRESSES,
        st.none() | TEXT,
        st.none() | TEXT,
        METADATA,
    ),
    OrderItemAdded: st.builds(OrderItemAdded, LINES),
    OrderItemRemoved: st.builds(OrderItemRemoved, TEXT),
    OrderLineQuantityChanged: st.builds(
        OrderLineQuantityChanged, TEXT, TEXT, AMOUNTS, AMOUNTS, AMOUNTS.map(int.__neg__)
    ),
    ShippingAddressChanged: st.builds(ShippingAddressChanged, TEXT, st.none() | TEXT, ADDRESSES),
    OrderHeld: st.builds(OrderHeld, TEXT),
    OrderHoldReleased: st.builds(OrderHoldReleased),
    OrderItemsReserved: st.builds(OrderItemsReserved, st.lists(TEXT).map(tuple)),
    OrderReservationExpired: st.builds(OrderReservationExpired),
    PaymentAuthorised: st.builds(PaymentAuthorised, TEXT, AMOUNTS, st.none() | TEXT),
    PaymentReceived: st.builds(PaymentReceived, TEXT, AMOUNTS, st.none() | TEXT, st.none() | TEXT),
    PaymentCaptured: st.builds(PaymentCaptured, TEXT, AMOUNTS),
    PaymentVoided: st.builds(PaymentVoided, TEXT, AMOUNTS, st.none() | TEXT),
    PaymentRefunded: st.builds(PaymentRefunded, TEXT, TEXT, AMOUNTS, TEXT, AMOUNTS),
    OrderConfirmed: st.builds(OrderConfirmed),
    ItemsShipped: st.builds(ItemsShipped, TEXT, TEXT, PIECES, st.none() | TEXT),
    ShipmentDelivered: st.builds(ShipmentDelivered, TEXT),
    ReturnRequested: st.builds(ReturnRequested, TEXT, PIECES, TEXT),
    ReturnReceived: st.builds(ReturnReceived, TEXT, RECEIVED, AMOUNTS),
    PaymentConfirmed: st.builds(PaymentConfirmed, TEXT, AMOUNTS),
    OrderShipped: st.builds(OrderShipped, TEXT, st.none() | TEXT, st.none() | TEXT),
    OrderDelivered: st.builds(OrderDelivered),
    OrderCancelled: st.builds(OrderCancelled, TEXT, AMOUNTS),
}
EVENTS = st.one_of(*BY_TYPE.values())
TYPES: list[type[OrderEvent]] = list(get_args(OrderEvent))
PLACED_V1 = {"customer_id": "a", "items": [{"product_id": "M", "quantity": 1, "unit_price": 2}]} | {
    "shipping_address_id": "h"
}


@for_all(EVENTS)
def test_decoding_gives_back_the_event_that_was_encoded(event: OrderEvent) -> None:
    event_type, version, data = codec.encode(event)
    assert codec.decode(event_type, version, data) == event
    assert codec.decode(event_type, version, data.encode()) == event


@for_all(EVENTS)
def test_an_event_is_stored_as_a_plain_json_object_named_by_its_class(event: OrderEvent) -> None:
    event_type, version, data = codec.encode(event)
    assert event_type == type(event).__name__
    assert version >= 1
    assert json.loads(data) == json.loads(json.dumps(msgspec.to_builtins(event)))


def test_every_event_type_is_generated_above() -> None:
    assert set(BY_TYPE) == set(TYPES)


@for_all(EVENTS, st.dictionaries(TEXT.map("added_later_{}".format), TEXT | st.integers() | st.none()))
def test_a_field_added_by_a_later_program_is_ignored(event: OrderEvent, added: dict[str, Any]) -> None:
    event_type, version, data = codec.encode(event)
    assert codec.decode(event_type, version, json.dumps({**json.loads(data), **added})) == event


@pytest.mark.parametrize(
    ("event_type", "data", "event"),
    [
        ("ShippingAddressChanged", '{"shipping_address_id":"home"}', ShippingAddressChanged("home", None)),
        ("OrderShipped", '{"tracking_number":"t"}', OrderShipped("t", None)),
        (
            "OrderItemAdded",
            '{"item":{"product_id":"M","quantity":1,"unit_price":2}}',
            OrderItemAdded(OrderLine("M", 1, 2, None)),
        ),
    ],
)
def test_a_missing_optional_field_takes_its_default(event_type: str, data: str, event: OrderEvent) -> None:
    assert codec.decode(event_type, 1, data) == event


def test_a_type_of_a_newer_program_stops_the_reader() -> None:
    with pytest.raises(UnknownEventType, match="OrderGiftWrapped") as stop:
        codec.decode("OrderGiftWrapped", 1, "{}")
    assert stop.value.event_type == "OrderGiftWrapped"


@pytest.mark.parametrize("event_type", [event_type.__name__ for event_type in TYPES])
def test_a_version_of_a_newer_program_or_none_at_all_stops_the_reader(event_type: str) -> None:
    current = EVENT_TYPES[event_type].version
    for version in (current + 1, 0, -1, 2**31 - 1):
        with pytest.raises(UnknownSchemaVersion, match=f"versions 1 to {current}") as stop:
            codec.decode(event_type, version, "{}")
        assert (stop.value.event_type, stop.value.schema_version) == (event_type, version)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    "data",
    ["", "nonsense", "[]", "null", "1", '"text"', "{", "{}", '{"customer_id": 1}', b"\xff", b"\x00"],
)
def test_what_does_not_fit_stops_the_reader(version: int, data: str | bytes) -> None:
    with pytest.raises(UnreadablePayload, match=f"OrderPlaced version {version}") as stop:
        codec.decode("OrderPlaced", version, data)
    assert stop.value.reason


@pytest.mark.parametrize("quantity", ["true", '"1"', "1.5", "null"])
def test_a_number_is_not_guessed(quantity: str) -> None:
    data = f'{{"item":{{"product_id":"M","quantity":{quantity},"unit_price":2}}}}'
    with pytest.raises(UnreadablePayload, match="quantity"):
        codec.decode("OrderItemAdded", 1, data)


def test_orders_of_before_there_were_currencies_were_in_pounds() -> None:
    event = codec.decode("OrderPlaced", 1, json.dumps(PLACED_V1))
    assert event == OrderPlaced("a", "GBP", (OrderLine("M", 1, 2),), "h")


def test_an_upcaster_does_not_overrule_what_was_written() -> None:
    event = codec.decode("OrderPlaced", 1, json.dumps({**PLACED_V1, "currency": "EUR"}))
    assert isinstance(event, OrderPlaced)
    assert event.currency == "EUR"


def test_what_is_written_today_is_the_current_version() -> None:
    assert codec.encode(placed())[:2] == ("OrderPlaced", 3)
