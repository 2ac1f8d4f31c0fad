"""Decides what an order's events do to the stock of its tracked products, in the same append. Pure.

An order reserves all its pieces of a tracked product, or is refused. What it has reserved follows from its own state:
the stock of a product knows sums only, so that a product in many orders is decided as fast as any other.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import reduce

from command_service.domain.decider import EventsByStream, MoreStreams, States
from command_service.domain.stock import InsufficientStock, Shortage
from shared.aggregates.order import (
    ORDER,
    ItemsShipped,
    Order,
    OrderCancelled,
    OrderConfirmed,
    OrderEvent,
    OrderItemAdded,
    OrderItemRemoved,
    OrderItemsReserved,
    OrderLine,
    OrderLineQuantityChanged,
    OrderPlaced,
    OrderReservationExpired,
    OrderShipped,
    PaymentConfirmed,
    ReturnReceived,
    State,
    evolve,
)
from shared.aggregates.stock import (
    STOCK,
    Stock,
    StockEvent,
    StockReleased,
    StockReservationExpired,
    StockReserved,
    StockReturned,
    StockShipped,
)

_MOVES_STOCK = frozenset(
    {
        ItemsShipped,
        OrderCancelled,
        OrderConfirmed,
        OrderItemAdded,
        OrderItemRemoved,
        OrderLineQuantityChanged,
        OrderPlaced,
        OrderReservationExpired,
        OrderShipped,
        PaymentConfirmed,
        ReturnReceived,
    }
)


def stock_streams(lines: Sequence[OrderLine]) -> list[str]:
    """Of their products, each once."""
    return [*dict.fromkeys([STOCK.stream_of(line.product_id) for line in lines])]


def with_stock(order_id: str, before: State, events: list[OrderEvent], states: States) -> EventsByStream:
    """The order's events, and those of the stock of its products. Raises `InsufficientStock` and `MoreStreams`."""
    own = ORDER.stream_of(order_id)
    if before is None and len(states) > 1 and not any(states.values()):  # no product of a new order is tracked
        return {own: events}
    if _MOVES_STOCK.isdisjoint(map(type, events)):
        return {own: events} if events else {}
    if reserved := _to_reserve(before, events, states):
        events = [*events, OrderItemsReserved(reserved)]
    elif before is None or not (before.reserved_products or before.expired_products):
        return {own: events}
    moved = _movements(order_id, before, events)
    _require(moved, states)
    return {own: events, **{STOCK.stream_of(product_id): stock_events for product_id, stock_events in moved.items()}}


def _to_reserve(before: State, events: Sequence[OrderEvent], states: States) -> tuple[str, ...]:
    """The tracked products of which the order gets pieces, and has none reserved yet. Once it is confirmed, also those
    whose reservation expired, as far as they are available: money is not refused."""
    known = frozenset(() if before is None else before.reserved_products)
    products = [product_id for product_id in _growing(events) if product_id not in known]
    streams = {product_id: STOCK.stream_of(product_id) for product_id in products}
    if unknown := [stream for stream in streams.values() if stream not in states]:
        raise MoreStreams((), usually_absent=unknown)
    tracked = [product_id for product_id, stream in streams.items() if states[stream] is not None]
    if before is not None and before.expired_products and _confirms(events):
        tracked += _still_available(before, events, states)
    return tuple(dict.fromkeys(tracked))


def _growing(events: Sequence[OrderEvent]) -> list[str]:
    """The products of which the order gets more pieces."""
    match events[0]:
        case OrderPlaced(items=items):
            return [*dict.fromkeys([line.product_id for line in items])]
        case OrderItemAdded(item):
            return [item.product_id]
        case OrderLineQuantityChanged(product_id=product_id, quantity=quantity, previous_quantity=previous):
            return [product_id] if quantity > previous else []
        case _:
            return []


def _confirms(events: Sequence[OrderEvent]) -> bool:
    return any(isinstance(event, OrderConfirmed | PaymentConfirmed) for event in events)


def _still_available(before: Order, events: Sequence[OrderEvent], states: States) -> list[str]:
    """The products whose reservation expired, and of which the order after the events can have what it needs."""
    wanted = reduce(evolve, [*events, OrderItemsReserved(before.expired_products)], before).reserved()
    streams = {product_id: STOCK.stream_of(product_id) for product_id in before.expired_products}
    streams = {product_id: stream for product_id, stream in streams.items() if product_id in wanted}
    if missing := [stream for stream in streams.values() if stream not in states]:
        raise MoreStreams(missing)
    return [product_id for product_id, stream in streams.items() if states[stream].available >= wanted[product_id]]


def _movements(order_id: str, before: State, events: Sequence[OrderEvent]) -> dict[str, list[StockEvent]]:
    """The events of each product's stock that the order's events come with."""
    after = reduce(evolve, events, before)
    assert after is not None
    held = {} if before is None else before.reserved()
    holds = after.reserved()
    out = {} if before is None else _shipped(before, events)
    back = {} if before is None else _restocked(before, events)
    expired = any(isinstance(event, OrderReservationExpired) for event in events)
    moved: dict[str, list[StockEvent]] = {}
    for product_id in dict.fromkeys([*after.reserved_products, *after.expired_products]):
        shipped, returned = out.get(product_id, 0), back.get(product_id, 0)
        change = holds.get(product_id, 0) + shipped - held.get(product_id, 0)
        stock_events: list[StockEvent] = []
        if change > 0:
            stock_events.append(StockReserved(order_id, change))
        elif change < 0:
            stock_events.append((StockReservationExpired if expired else StockReleased)(order_id, -change))
        if shipped:
            stock_events.append(StockShipped(order_id, shipped))
        if returned:
            stock_events.append(StockReturned(order_id, returned))
        if stock_events:
            moved[product_id] = stock_events
    return moved


def _shipped(before: Order, events: Sequence[OrderEvent]) -> dict[str, int]:
    """Pieces by product. Those whose reservation expired are taken from what is available."""
    pieces: Iterable[tuple[str, int]] = ()
    for event in events:
        if isinstance(event, ItemsShipped):
            pieces = [(line.line_id, line.quantity) for line in event.lines]
        elif isinstance(event, OrderShipped):
            pieces = before.left_to_ship().items()
    return _by_product(before, pieces)


def _restocked(before: Order, events: Sequence[OrderEvent]) -> dict[str, int]:
    """Pieces by product."""
    lines = [line for event in events if isinstance(event, ReturnReceived) for line in event.lines if line.restock]
    return _by_product(before, [(line.line_id, line.quantity) for line in lines])


def _by_product(order: Order, pieces: Iterable[tuple[str, int]]) -> dict[str, int]:
    found: dict[str, int] = {}
    lines = order.lines
    for line_id, count in pieces:
        product_id = lines[line_id].product_id
        found[product_id] = found.get(product_id, 0) + count
    return found


def _require(moved: Mapping[str, Sequence[StockEvent]], states: States) -> None:
    """Raises `InsufficientStock` with every product that is short, and `MoreStreams`."""
    if missing := [stream for product_id in moved if (stream := STOCK.stream_of(product_id)) not in states]:
        raise MoreStreams(missing)
    short = []
    for product_id, events in moved.items():
        stock: Stock = states[STOCK.stream_of(product_id)]
        requested = sum([event.quantity for event in events if isinstance(event, StockReserved)])
        if requested > stock.available:
            short.append(Shortage(product_id, requested, stock.available))
    if short:
        raise InsufficientStock(short)
