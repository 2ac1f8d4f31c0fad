"""The stock of a product: its commands, its refusal, and every rule that decides. Pure; state and `evolve` are in
`shared/aggregates/stock.py`. What orders reserve, ship and bring back is decided in `order/reservations.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never, get_args

import msgspec

from command_service.domain.decider import Decider
from shared.aggregates.stock import STOCK, Stock, StockAdjusted, StockEvent, StockReceived
from shared.errors import Rejected

MAX_PIECES = 1_000_000  # of one receipt or adjustment

# --- commands ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ReceiveStock:
    product_id: str
    quantity: int
    reference: str | None = None


@dataclass(frozen=True, slots=True)
class AdjustStock:
    """By 0: the product is tracked from now on."""

    product_id: str
    delta: int
    reason: str


StockCommand = ReceiveStock | AdjustStock


# --- refusals ------------------------------------------------------------------------------------------------------


class Shortage(msgspec.Struct, frozen=True):
    """`requested` pieces of a product, of which fewer are `available`."""

    product_id: str
    requested: int
    available: int


@dataclass
class InsufficientStock(Rejected):
    items: list[Shortage]
    code = "insufficient-stock"
    title = "There is too little in stock"

    @property
    def detail(self) -> str:
        first = self.items[0]
        others = f"; {len(self.items) - 1} more products are short" if len(self.items) > 1 else ""
        return f"Of product {first.product_id}, {first.available} are available, not {first.requested}{others}."


# --- decide --------------------------------------------------------------------------------------------------------


def decide(command: StockCommand, state: Stock | None) -> list[StockEvent]:
    """The events that the command leads to. Raises `InsufficientStock` where reserved pieces would be lost."""
    match command:
        case ReceiveStock(_, quantity, reference):
            return [StockReceived(quantity, reference)]
        case AdjustStock(product_id, delta, reason):
            available = 0 if state is None else state.available
            if available + delta < 0:
                raise InsufficientStock([Shortage(product_id, -delta, available)])
            return [] if state is not None and not delta else [StockAdjusted(delta, reason)]
        case _:
            assert_never(command)


def _product_id(command: StockCommand) -> str:
    return command.product_id


STOCKS: Decider[StockCommand, Stock, StockEvent] = Decider(
    aggregate=STOCK, commands=get_args(StockCommand), aggregate_id=_product_id, decide=decide
)
