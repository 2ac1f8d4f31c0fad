"""Compares the read model `orders` in Redis with the log, while both move.

Documents and their entries are read together with the checkpoint they belong to, and compared with the log up to that
very checkpoint. Then every key is looked at for what the log does not know of.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
from redis.asyncio import Redis

from projector.verification import Comparison
from projector.verification.plain import PAGE, PlainOrder, fold_orders, origins, pages_of_orders

STATUSES = ("PENDING", "CONFIRMED", "SHIPPED", "DELIVERED", "CANCELLED")
_DETAILS = {"items", "shipping_address_id", "tracking_number"}  # not in the summary
_PLACE_DIGITS = 15


async def compare(log: asyncpg.Connection[asyncpg.Record], redis: Redis, prefix: str) -> Comparison:
    """`prefix` is that of the generation's keys. Raises what redis and asyncpg raise, and ValueError."""
    comparison = Comparison()
    async for order_ids in pages_of_orders(log):
        await _compare_page(log, redis, prefix, order_ids, comparison)
    await _look_for_more(log, redis, prefix, comparison)
    return comparison


async def _compare_page(
    log: asyncpg.Connection[asyncpg.Record], redis: Redis, prefix: str, order_ids: list[str], comparison: Comparison
) -> None:
    origin = await origins(log, order_ids)
    asked: dict[str, list[str]] = {}  # index -> the orders that could be in it
    for order_id, (customer, _) in origin.items():
        for index in _indexes(customer):
            asked.setdefault(index, []).append(order_id)
    places = {order_id: _place(at, order_id) for order_id, (_, at) in origin.items()}
    async with redis.pipeline(transaction=True) as pipeline:
        pipeline.hget(prefix + "meta", "position")
        for order_id in order_ids:
            pipeline.hgetall(f"{prefix}doc:{order_id}")
        for index, ids in asked.items():
            pipeline.execute_command("ZMSCORE", prefix + index, *(places[order_id] for order_id in ids))
        position, *answers = await pipeline.execute()
    comparison.position = int(position or 0)
    found: dict[str, set[str]] = {order_id: set() for order_id in order_ids}
    for (index, ids), scores in zip(asked.items(), answers[len(order_ids) :], strict=True):
        for order_id, score in zip(ids, scores, strict=True):
            if score is not None:
                found[order_id].add(index)
    expected = await fold_orders(log, order_ids, comparison.position)
    for order_id, stored in zip(order_ids, answers, strict=False):
        _compare_one(order_id, expected.get(order_id), stored, found[order_id], comparison)


def _compare_one(
    order_id: str, order: PlainOrder | None, stored: dict[bytes, bytes], listed: set[str], comparison: Comparison
) -> None:
    comparison.compared += order is not None
    expected: dict[str, Any] = {}
    if order is not None:
        document = {name: value for name, value in order.items() if name != "paid"}
        summary = {name: value for name, value in document.items() if name not in _DETAILS}
        expected = {"document": document, "summary": summary, "version": order["version"]}
    if (found := {name.decode(): json.loads(value) for name, value in stored.items()}) != expected:
        comparison.differs(f"order {order_id} is {found or 'not there'}, the log says {expected or 'it is not'}")
    indexes = set() if order is None else _entries(order["customer_id"], order["status"])
    if listed != indexes:
        comparison.differs(f"order {order_id} is listed in {sorted(listed)}, the log says {sorted(indexes)}")


async def _look_for_more(
    log: asyncpg.Connection[asyncpg.Record], redis: Redis, prefix: str, comparison: Comparison
) -> None:
    """Documents of orders that there are not, places in lists where no such order belongs."""
    documents: list[str] = []
    pattern = "".join(f"[{c}]" if c in "*?[" else c for c in prefix) + "*"
    async for key in redis.scan_iter(match=pattern, count=PAGE):
        name = key.decode().removeprefix(prefix)
        if name.startswith("doc:"):
            documents.append(name.removeprefix("doc:"))
            if len(documents) == PAGE:
                await _known(log, documents, comparison)
                documents = []
        elif name not in ("meta", "heartbeat"):
            await _look_into(log, redis, prefix, name, comparison)
    await _known(log, documents, comparison)


async def _known(log: asyncpg.Connection[asyncpg.Record], order_ids: list[str], comparison: Comparison) -> None:
    for order_id in set(order_ids) - (await origins(log, order_ids)).keys():
        comparison.differs(f"order {order_id} is there, the log does not know it")


async def _look_into(
    log: asyncpg.Connection[asyncpg.Record], redis: Redis, prefix: str, index: str, comparison: Comparison
) -> None:
    places: list[str] = []
    async for member, _ in redis.zscan_iter(prefix + index, count=PAGE):
        places.append(member.decode())
        if len(places) == PAGE:
            await _belong(log, index, places, comparison)
            places = []
    await _belong(log, index, places, comparison)


async def _belong(
    log: asyncpg.Connection[asyncpg.Record], index: str, places: Sequence[str], comparison: Comparison
) -> None:
    origin = await origins(log, [place[_PLACE_DIGITS:] for place in places])
    for place in places:
        order_id = place[_PLACE_DIGITS:]
        customer, at = origin.get(order_id, ("", datetime.min.replace(tzinfo=UTC)))
        if index not in _indexes(customer) or place != _place(at, order_id):
            comparison.differs(f"list {index} holds {place}, where no order belongs")


def _indexes(customer: str) -> set[str]:
    """Every list that an order of that customer may be in, whatever its status."""
    return set().union(*(_entries(customer, status) for status in STATUSES))


def _entries(customer: str, status: str) -> set[str]:
    return {"all", f"status:{status}", f"customer:{customer}", f"customer:{customer}:status:{status}"}


def _place(at: datetime, order_id: str) -> str:
    microseconds = (at - datetime(1, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return f"{microseconds:015x}{order_id}"
