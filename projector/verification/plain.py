"""A plain fold of orders out of the log's rows: JSON in, dictionaries out."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias
from zlib import crc32

import asyncpg

Row: TypeAlias = asyncpg.Record
PlainOrder = dict[str, Any]  # the document, and `paid`
PAGE = 500

_PLACED = """
select stream_id from events
where version = 1 and stream_id > $1 and stream_id like 'order-%' order by stream_id limit $2
"""
_COUNT = "select count(*) from events where version = 1 and stream_id like 'order-%'"
_EVENTS = """
select stream_id, version, event_type, data::text as data, occurred_at from events
where stream_id = any($1) and position <= $2 order by stream_id, version
"""
_FIRST = "select stream_id, occurred_at, data::text as data from events where version = 1 and stream_id = any($1)"

_STATUS = {
    "OrderPlaced": "PENDING",
    "PaymentConfirmed": "CONFIRMED",
    "OrderShipped": "SHIPPED",
    "OrderDelivered": "DELIVERED",
    "OrderCancelled": "CANCELLED",
}
_NO_CHANGE = {"OrderItemAdded", "OrderItemRemoved", "ShippingAddressChanged"}


def partition_of(order_id: str, partitions: int) -> int:
    return crc32(order_id.encode()) % partitions


async def pages_of_orders(log: asyncpg.Connection[Row]) -> AsyncIterator[list[str]]:
    """The ids of all orders, some at a time."""
    last = ""
    while rows := await log.fetch(_PLACED, last, PAGE):
        last = rows[-1]["stream_id"]
        yield [row["stream_id"].removeprefix("order-") for row in rows]


async def count_orders(log: asyncpg.Connection[Row]) -> int:
    count: int = await log.fetchval(_COUNT)
    return count


async def fold_orders(log: asyncpg.Connection[Row], order_ids: Sequence[str], position: int) -> dict[str, PlainOrder]:
    """What those orders are at that position of the log; those that were not there yet are left out."""
    return fold(await log.fetch(_EVENTS, [f"order-{order_id}" for order_id in order_ids], position))


async def origins(log: asyncpg.Connection[Row], order_ids: Sequence[str]) -> dict[str, tuple[str, datetime]]:
    """Whose order it is and when it was placed, which never changes."""
    rows = await log.fetch(_FIRST, [f"order-{order_id}" for order_id in order_ids])
    return {
        row["stream_id"].removeprefix("order-"): (json.loads(row["data"])["customer_id"], row["occurred_at"])
        for row in rows
    }


def fold(rows: Iterable[Any]) -> dict[str, PlainOrder]:
    """Rows are stream by stream in order of version. Raises `ValueError` for an event that it does not know."""
    orders: dict[str, PlainOrder] = {}
    for row in rows:
        try:
            _apply(orders, row)
        except KeyError as error:
            raise ValueError(f"version {row['version']} of {row['stream_id']} lacks {error}") from error
    return orders


def _apply(orders: dict[str, PlainOrder], row: Any) -> None:
    order_id, data, kind = row["stream_id"].removeprefix("order-"), json.loads(row["data"]), row["event_type"]
    if kind == "OrderPlaced":
        orders[order_id] = _placed(order_id, data, row["occurred_at"])
    elif kind not in _STATUS and kind not in _NO_CHANGE:
        raise ValueError(f"version {row['version']} of {row['stream_id']} is a {kind}, which is not known here")
    order = orders[order_id]
    order["status"] = _STATUS.get(kind, order["status"])
    if kind == "OrderItemAdded":
        order["items"].append(_line(data["item"]))
    elif kind == "OrderItemRemoved":
        order["items"] = [item for item in order["items"] if item["product_id"] != data["product_id"]]
    elif kind == "ShippingAddressChanged":
        order["shipping_address_id"] = data["shipping_address_id"]
    elif kind == "PaymentConfirmed":
        order["paid"] += data["amount"]
    elif kind == "OrderShipped":
        order["tracking_number"] = data["tracking_number"]
    order["item_count"] = len(order["items"])
    order["total_amount"] = sum(item["line_total"] for item in order["items"])
    order["last_event_at"] = _time(row["occurred_at"])
    order["version"] = row["version"]


def _placed(order_id: str, data: dict[str, Any], at: datetime) -> PlainOrder:
    return {
        "order_id": order_id,
        "customer_id": data["customer_id"],
        "status": "PENDING",
        "currency": data.get("currency", "GBP"),  # the first orders were all in pounds and did not say so
        "items": [_line(item) for item in data["items"]],
        "shipping_address_id": data["shipping_address_id"],
        "tracking_number": None,
        "placed_at": _time(at),
        "paid": 0,
    }


def _line(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "product_id": item["product_id"],
        "product_name": item.get("product_name"),
        "quantity": item["quantity"],
        "unit_price": item["unit_price"],
        "line_total": item["quantity"] * item["unit_price"],
    }


def _time(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
