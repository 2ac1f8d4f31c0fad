"""Compares orders of the file with what the log says of them, as the query service tells their history."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Any
from urllib.parse import quote

import msgspec

from cli.importer.online_retail import Item, OrderRequest
from shared.aggregates.order import OrderPlaced
from shared.errors import Corrupt
from shared.eventstore import codec

_SCALARS = ("customer_id", "currency", "shipping_address_id", "occurred_at")


class NotAHistory(Exception):
    """The answer is not the history of an order."""


class _Event(msgspec.Struct):
    event_type: str
    schema_version: int
    occurred_at: datetime
    data: msgspec.Raw


class _History(msgspec.Struct):
    events: list[_Event]


def history_path(order_id: str) -> str:
    """Of the first event of the order's history."""
    return f"/orders/{quote(order_id, safe='')}/history?limit=1"


def differences(order: OrderRequest, history: bytes) -> list[str]:
    """What the file says otherwise than the event that placed the order; empty where they agree. Raises NotAHistory."""
    return [*_differences(order, _as_placed(order.order_id, history))]


def _as_placed(order_id: str, history: bytes) -> OrderRequest:
    """Fields of the event that the import does not set are left out."""
    try:
        [event] = msgspec.json.decode(history, type=_History).events
        placed = codec.decode(event.event_type, event.schema_version, bytes(event.data).decode())
    except (msgspec.DecodeError, ValueError, Corrupt) as error:
        raise NotAHistory(str(error)) from error
    if not isinstance(placed, OrderPlaced):
        raise NotAHistory(f"it begins with {event.event_type}")
    items = [Item(line.product_id, line.quantity, line.unit_price, line.product_name) for line in placed.items]
    return OrderRequest(
        order_id, placed.customer_id, items, placed.shipping_address_id, event.occurred_at, placed.currency
    )


def _differences(order: OrderRequest, placed: OrderRequest) -> Iterator[str]:
    for name in _SCALARS:
        if (new := getattr(order, name)) != (old := getattr(placed, name)):
            yield _difference(name, old, new)
    if len(order.items) != len(placed.items):
        yield _difference("number of lines", len(placed.items), len(order.items))
        return
    for number, (old_item, new_item) in enumerate(zip(placed.items, order.items, strict=True), start=1):
        for name in Item.__struct_fields__:
            if (new := getattr(new_item, name)) != (old := getattr(old_item, name)):
                yield _difference(f"{name} of line {number}", old, new)


def _difference(what: str, old: Any, new: Any) -> str:
    return f"{what} is {old} in the log, {new} in the file"
