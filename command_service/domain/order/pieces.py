"""What shipments and returns have in common: pieces of lines that have to be there. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

from command_service.domain.order.parcel_refusals import (
    ReceiptExceedsReturn,
    ReturnExceedsShipment,
    ShipmentExceedsOrder,
)
from command_service.domain.order.refusals import LineNotFound, TooManyEntries
from shared.aggregates.order import Order

MAX_PARCEL_LINES = 3_000  # of all shipments, and of all returns

_Exceeds: TypeAlias = type[ShipmentExceedsOrder] | type[ReturnExceedsShipment] | type[ReceiptExceedsReturn]


def require_lines(order_id: str, state: Order, named: Iterable[str]) -> None:
    known = state.lines
    for line_id in named:
        if line_id not in known:
            raise LineNotFound(order_id, line_id)


def require_available(
    order_id: str, exceeds: _Exceeds, available: Mapping[str, int], wanted: Mapping[str, int]
) -> None:
    for line_id, count in wanted.items():
        if count > (most := available.get(line_id, 0)):
            raise exceeds(order_id, line_id, most, count)


def require_few_lines(order_id: str, of: str, count: int) -> None:
    if count > MAX_PARCEL_LINES:
        raise TooManyEntries(order_id, of, MAX_PARCEL_LINES)
