"""One version of a projection's code makes one thing of events: what was built with it, any program of that version
continues.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from projector.folding import changes, fold
from projector.projection import Projection
from projector.projections import PROJECTIONS
from projector.routing import record, route
from shared.aggregates import EVENT_TYPES
from shared.aggregates.account import (
    AccountEvent,
    AccountOpened,
    InterestApplied,
    MoneyDeposited,
    MoneyWithdrawn,
    TransferInitiated,
    TransferReceived,
)
from shared.aggregates.aggregate import split_stream
from shared.aggregates.order import (
    OrderCancelled,
    OrderDelivered,
    OrderEvent,
    OrderItemAdded,
    OrderItemRemoved,
    OrderLine,
    OrderPlaced,
    OrderShipped,
    PaymentConfirmed,
    ShippingAddressChanged,
)
from shared.eventstore import codec
from shared.eventstore.log import StoredEvent

# (projection, version of its code) -> what it makes of the history below.
PINNED = {
    ("orders", 3): "dcf5621df9ba33bbbb5e4fc992e00b1f07e169603605e67678e876ad9f5604a7",
    ("revenue_by_day", 2): "7b1dbc71524bad1faee89fd38a6a7785bbae64ce91fcfbfef59668b4ca547d05",
    ("accounts", 1): "5cdbda0dd9653bef31d1b94373e1499eacfab47e632bc734b5c4423fa929823e",
    ("customers", 1): "ac4644fc986f12576f089ea1f4df2997a80920cdad82da6e1aa60c95743e937f",
    ("stock", 1): "cc36009c265ff1b9b42ac5ce5e0b32226c7ae6e252cc65c168b1ce0d90840117",
    ("processes", 1): "e91597d5e7605511afd049df73ca0cbbcf748905c221d8546e1defa04cb04a45",
    ("products", 1): "0735432a7f404d8817ddbdd6b6dc38dff7990e0c7caf1398fd8eede5bc918ca2",
    ("categories", 1): "8223791cf21b8d5794470820a19dec18718a1c7d3004007bf1b1db0330c72a0e",
}
MESSAGE = """
Version {version} of the projection {name!r} makes something else of events than it did:
{digest}
Programs of both codes would now go on with the same documents, and what is stored stays as the old code made it.
Raise `version` in projector/projections/{name}.py, and pin the new digest for the new version here. (Where only the
history of this test was changed, pin the new digest for the version there is.)"""

MUG = OrderLine("85123A", 6, 255, "WHITE MUG")
NAMELESS = OrderLine("71053", 1, 0)
DEAREST = OrderLine("größte Vase", 1_000_000, 1_000_000_000, 'größte "Vase" 🏺')
NEW_YEAR = datetime(2011, 1, 1, tzinfo=UTC)

# Raw, as a program from before there were currencies wrote it.
OLD = (
    "OrderPlaced",
    1,
    '{"customer_id":"bob","items":[{"product_id":"A","quantity":2,"unit_price":3}],"shipping_address_id":"home"}',
)
STORED_EVENTS = Path(__file__).parents[1] / "stored_events"


def written(event_type: str, version: int = 1) -> tuple[str, int, str]:
    """An event as a program of that version wrote it."""
    return event_type, version, (STORED_EVENTS / f"{event_type}.v{version}.json").read_text().strip()


# As the stored payloads follow on each other.
IN_PARTS: list[OrderEvent | tuple[str, int, str]] = [
    written("OrderPlaced", 3),
    *map(
        written,
        [
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
        ],
    ),
]
BEFORE_LINE_IDS: list[OrderEvent | tuple[str, int, str]] = [
    written("OrderPlaced", 2),
    written("OrderItemAdded", 1),
    written("ShippingAddressChanged", 1),
    written("OrderShipped", 1),
]
ORDERS: dict[str, list[OrderEvent | tuple[str, int, str]]] = {
    "in_parts": IN_PARTS,
    "before_line_ids": BEFORE_LINE_IDS,
    "delivered": [
        OrderPlaced("alice", "GBP", (MUG, NAMELESS, MUG), "home"),
        OrderItemAdded(MUG),
        OrderItemAdded(OrderLine("71053", 2, 339, "LANTERN")),
        OrderItemRemoved("85123A"),  # three lines at once
        ShippingAddressChanged("office", "moved"),
        PaymentConfirmed("pay-1", 678),
        OrderShipped("track-1", "carrier"),
        OrderDelivered(),
    ],
    "cancelled.at_once": [OrderPlaced("alice", "EUR", (DEAREST,), "home"), OrderCancelled("ordered twice", 0)],
    "cancelled-when-paid": [
        OrderPlaced("alice", "GBP", (MUG,), "home"),
        PaymentConfirmed("pay-2", 1_530),
        OrderCancelled("damaged", 1_530),
    ],
    "emptied": [  # projections check no rule
        OrderPlaced("bob", "JPY", (MUG,), "home"),
        OrderItemRemoved("nothing of the order"),
        OrderItemRemoved("85123A"),
        PaymentConfirmed("pay-3", 1),
        PaymentConfirmed("pay-4", 2),
        ShippingAddressChanged("home"),
        OrderShipped("track-2"),
    ],
    "pending": [OLD, OrderItemAdded(DEAREST)],
}
# What is no continuation: it stops the projection, or parks the order.
BROKEN: list[tuple[str, int, OrderEvent]] = [
    ("delivered", 9, OrderPlaced("alice", "GBP", (MUG,), "home")),
    ("delivered", 10, OrderDelivered()),
    ("never placed", 1, OrderDelivered()),
]


def stored(
    stream_id: str, version: int, position: int, event: OrderEvent | AccountEvent | tuple[str, int, str]
) -> StoredEvent:
    """Around midnight, told by clocks of other places."""
    at = NEW_YEAR + timedelta(hours=position - 3, microseconds=position)
    at = at.astimezone(timezone(timedelta(hours=3 if position % 2 else -3)))
    what = event if isinstance(event, tuple) else codec.encode(event)
    return StoredEvent(position, stream_id, version, UUID(int=position), *what, "{}", at, at, bytes(32))


def history() -> list[StoredEvent]:
    """The orders side by side, and what is none of theirs."""
    turns = [
        (order_id, version, events[version - 1])
        for version in range(1, max(map(len, ORDERS.values())) + 1)
        for order_id, events in ORDERS.items()
        if version <= len(events)
    ]
    log = [stored(f"order-{order_id}", version, nr, event) for nr, (order_id, version, event) in enumerate(turns, 1)]
    others: list[tuple[str, OrderEvent | tuple[str, int, str]]]
    others = [("customer-alice", OrderDelivered()), ("payment-pay-1", written("PaymentReferenceAssigned"))]
    return [*log, *(stored(stream_id, 1, nr, event) for nr, (stream_id, event) in enumerate(others, len(log) + 1))]


def account_history() -> list[StoredEvent]:
    """An account, with entries of which each is backdated."""
    events: list[AccountEvent] = [
        AccountOpened("alice", "GBP", 50),
        MoneyDeposited(1_000, "salary"),
        MoneyWithdrawn(30, "pay-1", "order-1"),
        TransferInitiated("t-1", "savings", 20, "savings"),
        TransferReceived("t-2", "savings", 5, "back"),
        InterestApplied(100, NEW_YEAR.date(), (NEW_YEAR + timedelta(days=1)).date(), 3, 7),
        MoneyDeposited(1, "late"),
    ]
    return [stored("account-main", nr, 20 - nr, event) for nr, event in enumerate(events, 1)]


def customer_history() -> list[StoredEvent]:
    """A customer who was erased, and another one under the id."""
    life = [
        "CustomerRegistered",
        "AddressSaved",
        "PaymentMethodSaved",
        "CustomerProfileChanged",
        "CustomerEmailChanged",
        "AddressRemoved",
        "PaymentMethodRemoved",
        "AddressSaved",
        "CustomerErased",
        "CustomerRegistered",
    ]
    return [stored("customer-17850", nr, nr, written(event_type)) for nr, event_type in enumerate(life, 1)]


def stock_history() -> list[StoredEvent]:
    """The stock of a product, in all that can happen to it."""
    names = ["Received", "Adjusted", "Reserved", "Released", "ReservationExpired", "Shipped", "Returned"]
    return [stored("stock-85123A", nr, nr, written(f"Stock{name}")) for nr, name in enumerate(names, 1)]


def process_history() -> list[StoredEvent]:
    """A process, in all that can happen to it."""
    life = [
        *("ProcessStarted", "EventReceived", "EffectRequested", "TimerSet", "EffectAnswered", "CommandDispatched"),
        *("TimerFired", "TimerSet", "CommandRefused", "ProcessStuck", "ProcessRetried", "TimerCancelled"),
        *("EffectRequested", "StepSkipped", "CompensationRequested", "ProcessEnded"),
    ]
    return [stored("process-fulfilment-536365", nr, nr, written(name)) for nr, name in enumerate(life, 1)]


def catalogue_history() -> list[StoredEvent]:
    """A product in several categories, reviewed and retired, and the categories."""
    bare: dict[str, Any] = {
        "name": "MUG",
        "description": None,
        "brand": None,
        "category": None,
        "tags": [],
        "unit_price": 0,
        "currency": "JPY",
        "sku": None,
        "reviews": 0,
        "stars": 0,
        "retired": False,
        "created_at": "2026-01-31T14:30:00.000001Z",
    }
    whole = {**bare, "description": "of bone", "brand": "Potter", "sku": "M/1", "currency": "GBP", "unit_price": 255}
    products = [
        bare,
        {**whole, "category": "Kitchen/Mugs", "tags": ["gift", "navy"]},
        {**whole, "category": "Garden", "tags": ["gift"], "reviews": 3, "stars": 13},
        {**whole, "retired": True},
        bare,
    ]
    rows: list[tuple[str, int, str, dict[str, Any]]]
    rows = [("product-NAVY MUG", nr, "ProductSaved", product) for nr, product in enumerate(products, 1)]
    rows += [
        (f"category-{nr}", 1, "CategoryAdded", {"path": path})
        for nr, path in enumerate(["Kitchen", "Garden", "Kitchen/Mugs"], 1)
    ]
    return [
        stored(stream_id, version, nr, (event_type, 1, json.dumps(data)))
        for nr, (stream_id, version, event_type, data) in enumerate(rows, 1)
    ]


HISTORIES = {  # of the other projections: `history`
    "accounts": account_history,
    "customers": customer_history,
    "stock": stock_history,
    "processes": process_history,
    "products": catalogue_history,
    "categories": catalogue_history,
}


def made_of(projection: Projection[Any]) -> Iterator[Any]:
    """What is written after each event; of what is broken, why not."""
    documents: dict[str, Any] = {}
    for event in HISTORIES.get(projection.name, history)():
        folded = fold(projection, route(projection, [event]), documents)
        assert folded.poison is None
        change = changes(projection, documents, folded.documents)
        documents |= folded.documents
        removed, added = (
            {name: sorted(places) for name, places in places.items()} for places in (change.removed, change.added)
        )
        yield event.position, change.documents, removed, added
    for order_id, version, broken in BROKEN:
        events = route(projection, [stored(f"order-{order_id}", version, 1, broken)])
        poison = fold(projection, events, documents).poison
        yield order_id, version, None if poison is None else type(poison.__cause__).__name__
    yield [(one.name, one.key, one.amounts) for one in projection.rollups]
    streams = [record(history()[0]._replace(stream_id=name)) for name in ("order-a.b", "order-", "customer-a")]
    yield [2 * (next(iter(projection.route(event)), None),) for event in streams]


def digest_of(projection: Projection[Any]) -> str:
    lines = (json.dumps(one, sort_keys=True) for one in made_of(projection))
    return sha256("\n".join(lines).encode()).hexdigest()


@pytest.mark.promise("read-models", "A projection whose code folds differently has another version")
@pytest.mark.parametrize("projection", [one.projection for one in PROJECTIONS.values()], ids=lambda one: one.name)
def test_code_that_makes_something_else_of_events_has_another_version(projection: Projection[Any]) -> None:
    digest = digest_of(projection)

    assert PINNED.get((projection.name, projection.version)) == digest, MESSAGE.format(
        name=projection.name, version=projection.version, digest=digest
    )


def test_the_history_has_events_of_every_type_and_every_version() -> None:
    """Of the aggregates that it is about: no projection follows the others."""
    events = [*history(), *account_history(), *customer_history(), *stock_history()]
    categories = {split_stream(event.stream_id)[0] for event in events}
    known = {
        (name, version)
        for name, known in EVENT_TYPES.items()
        if known.aggregate.category in categories
        for version in range(1, known.version + 1)
    }
    assert {(event.event_type, event.schema_version) for event in events} == known
