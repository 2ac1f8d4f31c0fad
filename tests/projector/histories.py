"""Random histories of a few orders, as the log would hold them."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from hypothesis import strategies as st

from projector.projection import RecordedEvent
from projector.routing import record
from shared.aggregates.order import (
    ORDER,
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

# Few values, so that they meet.
_lines = st.builds(
    OrderLine, st.sampled_from(["MUG", "LAMP"]), st.integers(1, 3), st.integers(0, 9), st.none() | st.just("Größe")
)
placings = st.builds(
    OrderPlaced,
    st.sampled_from(["alice", "bob"]),
    st.just("GBP"),
    st.lists(_lines, min_size=1, max_size=3).map(tuple),
    st.just("home"),
)
later: st.SearchStrategy[OrderEvent] = st.one_of(
    st.builds(OrderItemAdded, _lines),
    st.builds(OrderItemRemoved, st.sampled_from(["MUG", "LAMP"])),
    st.builds(ShippingAddressChanged, st.sampled_from(["home", "office"])),
    st.builds(PaymentConfirmed, st.just("pay-1"), st.integers(0, 100)),
    st.builds(OrderShipped, st.just("track-1")),
    st.just(OrderDelivered()),
    st.builds(OrderCancelled, st.just("mistake"), st.integers(0, 100)),
)


@st.composite
def logs(draw: st.DrawFn) -> list[StoredEvent]:
    """The projection checks no rule, so any event may follow any other, once the order is placed."""
    orders = draw(st.lists(st.sampled_from(["a", "b", "c"]), max_size=20))
    versions: Counter[str] = Counter()
    log = []
    for position, order_id in enumerate(orders, start=1):
        event = draw(placings if versions[order_id] == 0 else later)
        versions[order_id] += 1
        log.append(stored(event, order_id, versions[order_id], position))
    return log


def recorded(
    event: OrderEvent, version: int, position: int, occurred_at: datetime, order_id: str = "42"
) -> RecordedEvent[Any]:
    """As a projection is given it."""
    return record(stored(event, order_id, version, position)._replace(occurred_at=occurred_at))


def stored(event: OrderEvent, order_id: str, version: int, position: int) -> StoredEvent:
    at = datetime(2011, 1, 1, tzinfo=UTC) + timedelta(seconds=position // 3)
    return StoredEvent(
        position, ORDER.stream_of(order_id), version, UUID(int=position), *codec.encode(event), "{}", at, at, bytes(32)
    )
