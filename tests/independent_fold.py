"""What the read models must hold, recomputed from the log's rows by plain Python that shares nothing with the product.

Slow and simple on purpose. Times are compared as PostgreSQL prints them, key names are spelled out.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from time import monotonic
from typing import Any, cast
from uuid import UUID
from zlib import crc32

import asyncpg
from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

Document = dict[str, Any]


READ_MODELS = ("orders", "revenue_by_day")


async def assert_read_models_equal_the_log(
    database_url: str, redis_url: str, seconds: float = 30.0, read_models: Sequence[str] = READ_MODELS
) -> None:
    """Fails with the first differences unless the read models hold exactly the fold of the log, and nothing else.

    Nobody may append meanwhile; the projector is given the time to catch up.
    """
    rows, head = await _read_log(database_url)
    documents = fold(rows)
    if "revenue_by_day" in read_models:
        await _compare_revenue(database_url, head, revenue(rows, documents), seconds)
    if "orders" not in read_models:
        return
    async with redis_client(redis_url) as redis:
        prefixes = await _catch_up(redis, [head[0].hex, str(head[1])], seconds)
        for number, prefix in enumerate(prefixes):
            own = {
                order_id: document
                for order_id, document in documents.items()
                if crc32(order_id.encode()) % len(prefixes) == number
            }
            await _compare_documents(redis, prefix, own)
            await _compare_indexes(redis, prefix, own)


async def assert_orders_are_a_fold_of_the_log(
    database_url: str, redis_url: str, generation: int = 1, made: Callable[[Document], Document] = dict
) -> int:
    """Of one partition, up to the position that it claims, which is the answer; wherever that is, and whoever works
    on it no more. `made` is what other code makes of a document."""
    prefix = "{orders.0}:" if generation == 1 else f"{{orders.0}}.{generation}:"
    rows, (log_id, _) = await _read_log(database_url)
    async with redis_client(redis_url) as redis:
        of, found = await redis.hmget(prefix + "meta", ["log_id", "position"])
        if of is None or found is None:
            return 0  # there is none
        assert of == log_id.hex
        position = int(found)
        documents = {order_id: made(document) for order_id, document in fold(rows[:position]).items()}
        await _compare_documents(redis, prefix, documents)
        await _compare_indexes(redis, prefix, documents)
    return position


async def assert_revenue_is_a_fold_of_the_log(database_url: str) -> int:
    """As for the orders, of generation 1."""
    rows, (log_id, _) = await _read_log(database_url)
    connection = await asyncpg.connect(database_url)
    try:
        standing = await connection.fetchrow(
            "select log_id, position from read_models where projection = 'revenue_by_day' and generation = 1"
        )
        if standing is None or standing["log_id"] is None:
            return 0
        assert standing["log_id"] == log_id
        rows = rows[: standing["position"]]
        assert await _revenue_lines(connection, 1) == revenue(rows, fold(rows))
        return int(standing["position"])
    finally:
        await connection.close()


async def _read_log(database_url: str) -> tuple[list[Any], tuple[UUID, int]]:
    """Every row, and the head (log id, position)."""
    connection = await asyncpg.connect(database_url)
    try:
        # One snapshot: the log may grow meanwhile, the comparison is of what was there.
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            rows = await connection.fetch(
                "select position, stream_id, version, event_type, schema_version, data::text, occurred_at"
                " from events order by position"
            )
            head = await connection.fetchrow("select log_id, position from log_head")
            assert head is not None
    finally:
        await connection.close()
    assert [row["position"] for row in rows] == list(range(1, head["position"] + 1)), "the log has gaps"
    return rows, (head["log_id"], head["position"])


def redis_client(url: str) -> Redis:
    """A client of the server or the Cluster there, which answers in text."""
    if "+cluster" in url:
        return cast("Redis", RedisCluster.from_url(url.replace("+cluster", ""), decode_responses=True))
    return Redis.from_url(url, decode_responses=True)


async def _catch_up(redis: Redis, head: list[str], seconds: float) -> list[str]:
    """The prefixes of the keys of the live generation's partitions, once all are there."""
    deadline = monotonic() + seconds
    while True:
        live = int(await redis.hget("{orders.0}.generations", "live") or 1)
        partitions = int(await redis.hget("{orders.0}.generations", f"partitions:{live}") or 1)
        prefixes = [f"{{orders.{nr}}}" + (":" if live == 1 else f".{live}:") for nr in range(partitions)]
        found = [await redis.hmget(prefix + "meta", ["log_id", "position"]) for prefix in prefixes]
        if all(meta == head for meta in found):
            return prefixes
        assert monotonic() < deadline, f"the read model is at {found}, not at {head}"
        await asyncio.sleep(0.01)


def fold(rows: list[Any]) -> dict[str, Document]:
    """Order id -> the document after all rows."""
    documents: dict[str, Document] = {}
    for row in rows:
        order_id = row["stream_id"].removeprefix("order-")
        data = json.loads(row["data"])
        if row["event_type"] == "OrderPlaced":
            assert order_id not in documents
            documents[order_id] = {
                "order_id": order_id,
                "customer_id": data["customer_id"],
                "status": "PENDING",
                "currency": data.get("currency", "GBP"),
                "items": [_line(item) for item in data["items"]],
                "shipping_address_id": data["shipping_address_id"],
                "tracking_number": None,
                "placed_at": _time(row["occurred_at"]),
                "version": 0,
            }
        document = documents[order_id]
        _change(document, row["event_type"], data)
        assert row["version"] == document["version"] + 1
        document["version"] += 1
        document["last_event_at"] = _time(row["occurred_at"])
        document["item_count"] = len(document["items"])
        document["total_amount"] = sum(item["line_total"] for item in document["items"])
    return documents


def _change(document: Document, event_type: str, data: dict[str, Any]) -> None:
    if event_type == "OrderItemAdded":
        document["items"].append(_line(data["item"]))
    elif event_type == "OrderItemRemoved":
        document["items"] = [item for item in document["items"] if item["product_id"] != data["product_id"]]
    elif event_type == "ShippingAddressChanged":
        document["shipping_address_id"] = data["shipping_address_id"]
    elif event_type == "OrderShipped":
        document["status"] = "SHIPPED"
        document["tracking_number"] = data["tracking_number"]
    else:
        statuses = {
            "OrderPlaced": "PENDING",
            "PaymentConfirmed": "CONFIRMED",
            "OrderDelivered": "DELIVERED",
            "OrderCancelled": "CANCELLED",
        }
        document["status"] = statuses[event_type]


def _line(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "product_id": item["product_id"],
        "product_name": item.get("product_name"),
        "quantity": item["quantity"],
        "unit_price": item["unit_price"],
        "line_total": item["quantity"] * item["unit_price"],
    }


def _time(value: datetime) -> str:
    value = value.astimezone(UTC)
    return value.isoformat().replace("+00:00", "Z")


def revenue(rows: list[Any], documents: dict[str, Document]) -> dict[tuple[str, str, str], tuple[int, int, int, int]]:
    """(day, currency, status) -> (orders, placed, paid, cancelled)."""
    paid: defaultdict[str, int] = defaultdict(int)
    for row in rows:
        if row["event_type"] == "PaymentConfirmed":
            paid[row["stream_id"].removeprefix("order-")] += json.loads(row["data"])["amount"]
    lines: defaultdict[tuple[str, str, str], tuple[int, int, int, int]] = defaultdict(lambda: (0, 0, 0, 0))
    for order_id, document in documents.items():
        key = (document["placed_at"][:10], document["currency"], document["status"])
        orders, placed, paid_so_far, cancelled = lines[key]
        total = document["total_amount"]
        lost = total if document["status"] == "CANCELLED" else 0
        lines[key] = (orders + 1, placed + total, paid_so_far + paid[order_id], cancelled + lost)
    return dict(lines)


async def _compare_revenue(database_url: str, head: tuple[UUID, int], expected: dict[Any, Any], seconds: float) -> None:
    deadline = monotonic() + seconds
    connection = await asyncpg.connect(database_url)
    try:
        while not (standings := await _revenue_standings(connection)) or {row[:2] for row in standings} != {head}:
            assert monotonic() < deadline, f"revenue_by_day is at {standings}, not at {head}"
            await asyncio.sleep(0.01)
        assert await _revenue_lines(connection, standings[0][2]) == expected
    finally:
        await connection.close()


async def _revenue_lines(connection: asyncpg.Connection[asyncpg.Record], generation: int) -> dict[Any, Any]:
    rows = await connection.fetch("select * from revenue_by_day where generation = $1", generation)
    return {
        (row["day"].isoformat(), row["currency"], row["status"]): tuple(
            int(row[name]) for name in ("orders", "placed", "paid", "cancelled")
        )
        for row in rows
    }


async def _revenue_standings(connection: asyncpg.Connection[asyncpg.Record]) -> list[tuple[Any, ...]]:
    """(log id, position, generation) of each partition of the live generation; none while one is missing."""
    live = await connection.fetchrow(
        "select live, partitions::text from read_model_generations where projection = 'revenue_by_day'"
    )
    generation, partitions = (1, 1) if live is None else (live[0], json.loads(live[1]).get(str(live[0]), 1))
    names = ["revenue_by_day", *(f"revenue_by_day.{nr}" for nr in range(1, partitions))]
    rows = await connection.fetch(
        "select log_id, position, generation from read_models where projection = any($1) and generation = $2",
        names,
        generation,
    )
    return [tuple(row) for row in rows] if len(rows) == partitions else []


async def _compare_documents(redis: Redis, prefix: str, documents: dict[str, Document]) -> None:
    stored: dict[str, Any] = {}
    keys = [key async for key in redis.scan_iter(match=f"{prefix}doc:*", count=1_000)]
    for key in keys:
        stored[key.removeprefix(f"{prefix}doc:")] = await redis.hgetall(key)
    assert stored.keys() == documents.keys(), _difference(stored.keys(), documents.keys())
    for order_id, document in documents.items():
        assert json.loads(stored[order_id]["document"]) == document, order_id
        details = ("items", "shipping_address_id", "tracking_number")
        summary = {name: value for name, value in document.items() if name not in details}
        assert json.loads(stored[order_id]["summary"]) == summary, order_id
        assert stored[order_id]["version"] == str(document["version"]), order_id


async def _compare_indexes(redis: Redis, prefix: str, documents: dict[str, Document]) -> None:
    expected: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for order_id, document in documents.items():
        placed = (document["placed_at"], order_id)
        customer = f"customer:{document['customer_id']}"
        for index in ("all", f"status:{document['status']}", customer, f"{customer}:status:{document['status']}"):
            expected[prefix + index].append(placed)
    others = {prefix + "meta", prefix + "heartbeat"}
    keys = {key async for key in redis.scan_iter(match=f"{prefix}*", count=1_000)}
    indexes = {key for key in keys if ":doc:" not in key} - others
    assert indexes == expected.keys(), _difference(indexes, expected.keys())
    for key, orders in expected.items():
        in_order = [order_id for _, order_id in sorted(orders, key=lambda order: (_moment(order[0]), order[1]))]
        # What precedes the id in a member is a sort key of fixed width; it shows in the order.
        assert [member[15:] for member in await redis.zrange(key, 0, -1)] == in_order, key


def _moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _difference(found: Any, expected: Any) -> str:
    missing, surplus = sorted(set(expected) - set(found)), sorted(set(found) - set(expected))
    return f"missing {missing[:5]} of {len(missing)}, surplus {surplus[:5]} of {len(surplus)}"
