"""History stays readable: every shape that was ever written is kept in `tests/stored_events/` and still folds.

When an event class changes, the last test here says what to do. In short: old events stay as they are in the log, so
the new shape is a new version, with an upcaster from the old one.
"""

from __future__ import annotations

import json
from functools import reduce
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from shared.aggregates import EVENT_TYPES, stock
from shared.aggregates.account import Account, Day
from shared.aggregates.address import Address
from shared.aggregates.customer import CustomerDocument, CustomerStatus, PaymentMethod, opened
from shared.aggregates.customer import fold as fold_customer
from shared.aggregates.order import (
    LineQuantity,
    OrderLine,
    OrderPlaced,
    OrderStatus,
    Payment,
)
from shared.aggregates.stock import Stock
from shared.eventstore import codec
from shared.privacy.sealed import KEY_BYTES, SubjectKey
from tests.accounts import account, day
from tests.given_when_then import fold

DIRECTORY = Path(__file__).parents[1] / "stored_events"
SCHEMAS = DIRECTORY / "schemas.json"
TYPES = [known.event for known in EVENT_TYPES.values()]
STORED = sorted(path.name for path in DIRECTORY.glob("*.v*.json"))


def read(name: str) -> Any:
    """The stored payload `<type>.v<version>.json` as today's event."""
    event_type, version, _ = name.split(".")
    return codec.decode(event_type, int(version.removeprefix("v")), (DIRECTORY / name).read_bytes())


def schema_of(event_type: type[Any]) -> dict[str, Any]:
    """The shape of an event class, without its docstrings."""

    def bare(node: Any) -> Any:
        if isinstance(node, dict):
            return {key: bare(value) for key, value in node.items() if key not in ("title", "description")}
        return [bare(item) for item in node] if isinstance(node, list | tuple) else node

    schema: dict[str, Any] = bare(msgspec.json.schema(event_type))
    return schema


def test_there_is_a_stored_payload_of_every_version_of_every_type() -> None:
    versions = {name: range(1, known.version + 1) for name, known in EVENT_TYPES.items()}
    assert sorted(f"{name}.v{version}.json" for name in versions for version in versions[name]) == STORED


@pytest.mark.parametrize("name", STORED)
def test_a_stored_payload_is_still_understood(name: str) -> None:
    event = read(name)
    assert type(event).__name__ == name.split(".", maxsplit=1)[0]


@pytest.mark.parametrize("placed", ["OrderPlaced.v1.json", "OrderPlaced.v2.json"])
@pytest.mark.parametrize("written", [{}, {"OrderItemAdded": 2, "ShippingAddressChanged": 2, "OrderShipped": 2}])
def test_a_stored_life_still_folds(placed: str, written: dict[str, int]) -> None:
    life = ["OrderItemAdded", "OrderItemRemoved", "ShippingAddressChanged", "PaymentConfirmed", "OrderShipped"]
    events = [read(f"{name}.v{written.get(name, 1)}.json") for name in [*life, "OrderDelivered"]]
    state = fold(read(placed), *events)
    assert state is not None
    assert state.status is OrderStatus.DELIVERED
    assert (state.customer_id, state.currency, state.shipping_address_id) == ("17850", "GBP", "address-2")
    line = OrderLine("85123A", 6, 255, "WHITE HANGING HEART T-LIGHT HOLDER")
    assert [replace(one, line_id=None) for one in state.items] == [line]
    assert state.lines.keys() == {"1"}
    assert state.payments == (Payment("pay-20260131-7", 1530, authorised=False, captured=1530),)
    [shipment] = state.shipments
    assert (shipment.tracking_number, shipment.carrier) == ("RM123456789GB", "Royal Mail")
    assert (shipment.lines, shipment.delivered) == ((LineQuantity("1", 6),), True)


def test_a_stored_life_in_parts_folds() -> None:
    """Every event of an order that is not in the life above."""
    state = fold(
        read("OrderPlaced.v3.json"),
        *[
            read(f"{name}.v1.json")
            for name in (
                "OrderLineQuantityChanged",
                "OrderHeld",
                "OrderHoldReleased",
                "OrderItemsReserved",
                "OrderReservationExpired",
                "PaymentAuthorised",
                "OrderConfirmed",
                "PaymentCaptured",
                "PaymentVoided",
                "PaymentReceived",
                "ItemsShipped",
                "ShipmentDelivered",
                "ReturnRequested",
                "ReturnReceived",
                "PaymentRefunded",
            )
        ],
    )
    assert state is not None
    assert (state.total, state.payable, state.paid, state.amount_due) == (1_360, 1_105, 1_105, 0)
    assert state.shipping_address is not None
    assert state.shipping_address.city == "London"
    assert [payment.payment_reference for payment in state.payments] == ["pay-20260131-8", "pay-20260131-9"]
    assert (state.reserved_products, state.expired_products) == ((), ("85123A", "71053"))


def test_a_stored_cancellation_still_folds() -> None:
    state = fold(read("OrderPlaced.v2.json"), read("PaymentConfirmed.v1.json"), read("OrderCancelled.v1.json"))
    assert state is not None
    assert state.status is OrderStatus.CANCELLED
    assert state.cancellation is not None
    assert state.cancellation.refund_amount == 1530


def test_a_stored_life_of_an_account_still_folds() -> None:
    names = ["AccountOpened", "MoneyDeposited", "MoneyWithdrawn", "TransferReceived", "TransferInitiated"]
    state = account([(day(1), read(f"{name}.v1.json")) for name in names])
    state = account([(day(40), read("InterestApplied.v1.json"))], state)
    balance = 500_000 - 1_530
    assert state == Account(
        "alice",
        "GBP",
        10_000,
        opened_at=day(1),
        latest_at=day(40),
        days=(Day(day(1).date(), 0, balance), Day(day(40).date(), balance, balance + 421)),
        interest_until=day(32).date(),
        remainder=1_234_567,
    )


def test_a_stored_life_of_a_customer_still_folds_and_opens() -> None:
    names = [
        "CustomerRegistered",
        "CustomerProfileChanged",
        "CustomerEmailChanged",
        "AddressSaved",
        "PaymentMethodSaved",
    ]
    document: CustomerDocument | None = None
    for version, name in enumerate(names, 1):
        document = fold_customer("17850", document, read(f"{name}.v1.json"), version, day(version))
    assert document is not None
    shown = opened(document, SubjectKey("c3RvcmVkIGV2ZW50", "customer-17850", bytes(range(KEY_BYTES))))
    assert (shown.name, shown.email, shown.phone, shown.locale) == ("Ada King", "king@example.org", None, "en-GB")
    street, phone = "12 St James's Square", "+44 20 7946 0000"
    assert shown.addresses == {"home": Address("Ada Lovelace", (street,), "London", "GB", None, "SW1Y 4JH", phone)}
    method = PaymentMethod("payments.example", "tok_visa_tour", "Visa", "4242", "2027-09")
    assert shown.payment_methods == {"visa": method}
    for version, name in enumerate(["AddressRemoved", "PaymentMethodRemoved", "CustomerErased"], 6):
        document = fold_customer("17850", document, read(f"{name}.v1.json"), version, day(version))
    assert (document.name, document.addresses, document.payment_methods) == (None, {}, {})
    assert document.status is CustomerStatus.ERASED


def test_a_stored_life_of_a_stock_still_folds() -> None:
    names = ["Received", "Adjusted", "Reserved", "Released", "ReservationExpired", "Shipped", "Returned"]
    nothing: Stock | None = None
    events = [read(f"Stock{name}.v1.json") for name in names]
    assert reduce(stock.evolve, events, nothing) == Stock(on_hand=196, reserved=1, sold=1)


def test_what_was_written_before_there_were_currencies_is_in_pounds() -> None:
    event = read("OrderPlaced.v1.json")
    assert isinstance(event, OrderPlaced)
    assert event.currency == "GBP"


@pytest.mark.parametrize("event_type", TYPES, ids=lambda event_type: event_type.__name__)
def test_an_event_class_changes_only_with_its_version(event_type: type[Any]) -> None:
    name = event_type.__name__
    version = EVENT_TYPES[name].version
    committed: dict[str, Any] = json.loads(SCHEMAS.read_text())
    assert committed.get(f"{name}.v{version}") == schema_of(event_type), f"""
The shape of {name} is no longer the one committed as version {version}, and the log holds events of that shape.

1. In its module in shared/aggregates/ give the aggregate versions={{{name}: {version + 1}}} and an upcaster for
   ({name}, {version}), which turns a version {version} payload into a version {version + 1} one.
2. Leave {DIRECTORY.name}/{name}.v{version}.json as it is; add {name}.v{version + 1}.json as it is written now.
3. Add to {DIRECTORY.name}/{SCHEMAS.name}:
   "{name}.v{version + 1}": {json.dumps(schema_of(event_type))}

(If {name} was never deployed in its old shape, edit the entry of version {version} instead.)
"""
