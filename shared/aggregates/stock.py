"""The stock of one product: its events, state, and document in time travel. Pure.

The stream is `stock-<product_id>`; a product without one is not tracked. The events that name an order are decided by
the commands on orders, in the same append. The rules that decide are in `command_service/domain/stock.py`.
"""

from __future__ import annotations

from datetime import datetime
from typing import assert_never, final, get_args

import msgspec
from msgspec.structs import replace

from shared.aggregates.aggregate import Aggregate, PastState


@final
class StockReceived(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    quantity: int
    reference: str | None = None


@final
class StockAdjusted(msgspec.Struct, frozen=True, gc=False):
    """Counted, lost or found: so many pieces more, or less where `delta` is below 0."""

    delta: int
    reason: str


class _PiecesOfOrder(msgspec.Struct, frozen=True, gc=False):
    order_id: str
    quantity: int


@final
class StockReserved(_PiecesOfOrder, frozen=True, gc=False):
    """For that order, so many pieces more."""


@final
class StockReleased(_PiecesOfOrder, frozen=True, gc=False):
    """That order was cancelled, or has so many pieces less."""


@final
class StockReservationExpired(_PiecesOfOrder, frozen=True, gc=False):
    """That order was not confirmed in time."""


@final
class StockShipped(_PiecesOfOrder, frozen=True, gc=False):
    """Reserved pieces left with that order."""


@final
class StockReturned(_PiecesOfOrder, frozen=True, gc=False):
    """Pieces of that order came back and are sold again."""


StockEvent = (
    StockReceived
    | StockAdjusted
    | StockReserved
    | StockReleased
    | StockReservationExpired
    | StockShipped
    | StockReturned
)


class Stock(msgspec.Struct, frozen=True, gc=False):
    """`on_hand` is received and adjusted, without what is `sold`: shipped, and not returned."""

    on_hand: int = 0
    reserved: int = 0
    sold: int = 0

    @property
    def available(self) -> int:
        return self.on_hand - self.reserved


def evolve(state: Stock | None, event: StockEvent) -> Stock:
    """The state after the event. The log is trusted: what was decided once is not judged again."""
    stock = Stock() if state is None else state
    match event:
        case StockReceived():
            return replace(stock, on_hand=stock.on_hand + event.quantity)
        case StockAdjusted():
            return replace(stock, on_hand=stock.on_hand + event.delta)
        case StockReserved():
            return replace(stock, reserved=stock.reserved + event.quantity)
        case StockReleased() | StockReservationExpired():
            return replace(stock, reserved=stock.reserved - event.quantity)
        case StockShipped(_, quantity):
            return Stock(stock.on_hand - quantity, stock.reserved - quantity, stock.sold + quantity)
        case StockReturned(_, quantity):
            return replace(stock, on_hand=stock.on_hand + quantity, sold=stock.sold - quantity)
        case _:
            assert_never(event)


# --- document ------------------------------------------------------------------------------------------------------


class StockDocument(msgspec.Struct, frozen=True, gc=False):
    """What `GET /products/{product_id}/stock` answers, field by field. In pieces.

    Time travel renders it from the state, the projection `stock` updates it event by event.
    """

    product_id: str
    on_hand: int
    reserved: int
    available: int
    sold: int
    last_event_at: datetime
    version: int


def document(product_id: str, past: PastState[Stock]) -> StockDocument:
    stock = past.state
    return StockDocument(
        product_id, stock.on_hand, stock.reserved, stock.available, stock.sold, past.last_event_at, past.version
    )


STOCK: Aggregate[Stock, StockEvent] = Aggregate(
    category="stock",
    state=Stock,
    events=get_args(StockEvent),
    evolve=evolve,
    in_sequence=True,  # pieces are reserved and leave when the log says so
    plural="stock",
    document=document,
    example=StockReceived(200, "delivery-77"),
    example_id="LANTERN",
)
