"""Orders and the stock of their products without a server, and a grammar of what follows.

given(MUG=5).when(PlaceOrder(…)).then(order=[…], MUG=[reserved(2)])
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest

from command_service.decision import streams_of
from command_service.domain import DECIDERS
from command_service.domain.decider import EventsByStream, MoreStreams
from command_service.domain.order import PlaceOrder
from shared.aggregates import aggregate_of
from shared.aggregates.order import ORDER, Order, OrderLine
from shared.aggregates.stock import (
    STOCK,
    Stock,
    StockAdjusted,
    StockEvent,
    StockReceived,
    StockReleased,
    StockReservationExpired,
    StockReserved,
    StockReturned,
    StockShipped,
)
from shared.errors import OrdersError

NOW = datetime(2026, 1, 31, 14, 30, tzinfo=UTC)
ORDER_ID = "42"


def place(*lines: OrderLine, order_id: str = ORDER_ID) -> PlaceOrder:
    return PlaceOrder(order_id, "alice", "GBP", lines, "home")


def line(product_id: str, quantity: int, line_id: str | None = None) -> OrderLine:
    return OrderLine(product_id, quantity, 100, line_id=line_id)


def reserved(quantity: int, order_id: str = ORDER_ID) -> StockReserved:
    return StockReserved(order_id, quantity)


def released(quantity: int) -> StockReleased:
    return StockReleased(ORDER_ID, quantity)


def expired(quantity: int) -> StockReservationExpired:
    return StockReservationExpired(ORDER_ID, quantity)


def shipped(quantity: int) -> StockShipped:
    return StockShipped(ORDER_ID, quantity)


def returned(quantity: int) -> StockReturned:
    return StockReturned(ORDER_ID, quantity)


@dataclass
class Shop:
    """The state of every stream, and every event so far."""

    states: dict[str, Any] = field(default_factory=dict)
    log: list[tuple[str, Any]] = field(default_factory=list)

    def decide(self, command: Any) -> EventsByStream:
        """On the states of the streams that the command turns out to need, as the handler does."""
        decider = DECIDERS[type(command)]
        streams = {*streams_of(decider, command), *decider.usually_absent(command)}
        while True:
            states = {name: self.states.get(name) for name in streams}
            try:
                if decider.decide is not None:
                    own = decider.stream_of(command)
                    return {own: decider.decide(command, states[own])}
                return decider.decide_over(command, states, NOW)
            except MoreStreams as more:
                asked = {*more.streams, *more.usually_absent}
                assert asked - streams, "it asks for what it has"
                streams |= asked

    def do(self, command: Any) -> EventsByStream:
        decided = self.decide(command)
        for stream, events in decided.items():
            for event in events:
                self.apply(stream, event)
        return decided

    def apply(self, stream: str, event: Any) -> None:
        self.states[stream] = aggregate_of(stream).after(self.states.get(stream), event, NOW)
        self.log.append((stream, event))

    def stock(self, product_id: str) -> Stock | None:
        return self.states.get(STOCK.stream_of(product_id))

    def order(self, order_id: str = ORDER_ID) -> Order:
        state = self.states[ORDER.stream_of(order_id)]
        assert isinstance(state, Order)
        return state


@dataclass(frozen=True)
class _Decision:
    shop: Shop
    command: Any

    def then(self, order: Sequence[Any] | None = None, **stock: Sequence[StockEvent]) -> _Past:
        """These events of the order, where they are given, and of the stock of these products, and no others."""
        decided = self.shop.do(self.command)
        found = {product_id: [*events] for stream, events in decided.items() if (product_id := STOCK.id_of(stream))}
        assert found == stock
        if order is not None:
            own = ORDER.stream_of(self.command.order_id)
            assert [*decided.get(own, ())] == order
        return _Past(self.shop)

    def then_refused(self, error: type[OrdersError], **data: object) -> None:
        with pytest.raises(error) as refusal:
            self.shop.decide(self.command)
        assert {name: getattr(refusal.value, name) for name in data} == data


@dataclass(frozen=True)
class _Past:
    shop: Shop

    def when(self, command: Any) -> _Decision:
        return _Decision(self.shop, command)


def given(*commands: Any, **stock: int) -> _Past:
    """So many pieces of each product were received, then these commands were carried out."""
    shop = Shop()
    for product_id, quantity in stock.items():
        shop.apply(STOCK.stream_of(product_id), StockReceived(quantity))
    for command in commands:
        shop.do(command)
    return _Past(shop)


# --- balances ------------------------------------------------------------------------------------------------------


class Books:
    """What a log says of the stock of each product, computed from its events alone. `add` checks after each event that
    nothing is oversold."""

    def __init__(self) -> None:
        self.brought: Counter[str] = Counter()  # received and adjusted
        self.sold: Counter[str] = Counter()
        self.reserved: Counter[str] = Counter()
        self.held: defaultdict[str, Counter[str]] = defaultdict(Counter)  # reserved pieces of products, by order

    def add(self, product_id: str, event: StockEvent) -> None:
        match event:
            case StockReceived():
                self.brought[product_id] += event.quantity
            case StockAdjusted():
                self.brought[product_id] += event.delta
            case StockReserved():
                self._hold(product_id, event.order_id, event.quantity)
            case StockReleased() | StockReservationExpired():
                self._hold(product_id, event.order_id, -event.quantity)
            case StockShipped():
                self._hold(product_id, event.order_id, -event.quantity)
                self.sold[product_id] += event.quantity
            case StockReturned():
                self.sold[product_id] -= event.quantity
        available = self.brought[product_id] - self.sold[product_id] - self.reserved[product_id]
        assert available >= 0, f"{product_id} is oversold by {event}"
        assert self.sold[product_id] >= 0

    def _hold(self, product_id: str, order_id: str, quantity: int) -> None:
        self.reserved[product_id] += quantity
        self.held[order_id][product_id] += quantity
        assert self.held[order_id][product_id] >= 0
        self.held[order_id] = +self.held[order_id]  # without products of which it holds nothing
