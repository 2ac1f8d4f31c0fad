"""The read model "orders" in Redis: a document an order, and its indexes."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from time import monotonic
from typing import Any, cast
from zlib import crc32

from redis.asyncio import Redis
from redis.asyncio.cluster import RedisCluster

from tests.independent_folds.event_rows import Log, order_id_of, read_log, time_of

Document = dict[str, Any]

DIGITS = {"JPY": 0, "KWD": 3}  # of the minor units of currencies that tests use, where it is not 2
SUMMARY = (
    "order_id",
    "customer_id",
    "status",
    "currency",
    "currency_exponent",
    "total_amount",
    "item_count",
    "placed_at",
    "last_event_at",
    "version",
)


async def assert_equals(log: Log, redis_url: str, seconds: float) -> None:
    """The live generation holds the fold of the log, within the time."""
    documents = fold(log.rows)
    async with _client(redis_url) as redis:
        prefixes = await _catch_up(redis, [log.log_id.hex, str(log.position)], seconds)
        for number, prefix in enumerate(prefixes):
            own = {
                order_id: document
                for order_id, document in documents.items()
                if crc32(order_id.encode()) % len(prefixes) == number
            }
            await _compare(redis, prefix, own)


async def assert_is_a_fold(
    database_url: str, redis_url: str, generation: int = 1, made: Callable[[Document], Document] = dict
) -> int:
    """One partition holds the fold of the log up to its own checkpoint; returns that position, 0 where there is none.

    `made` is what other code makes of a document.
    """
    prefix = "{orders.0}:" if generation == 1 else f"{{orders.0}}.{generation}:"
    log = await read_log(database_url)
    async with _client(redis_url) as redis:
        log_id, position = await redis.hmget(prefix + "meta", ["log_id", "position"])
        if log_id is None or position is None:
            return 0
        assert log_id == log.log_id.hex
        documents = fold(log.rows[: int(position)])
        await _compare(redis, prefix, {order_id: made(document) for order_id, document in documents.items()})
    return int(position)


def fold(rows: list[Any]) -> dict[str, Document]:
    """Order id -> the document after all rows."""
    documents: dict[str, Document] = {}
    for row in rows:
        if (order_id := order_id_of(row)) is None:
            continue
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
                "payment_status": "unpaid",
                "fulfilment_status": "unfulfilled",
                "amount_paid": 0,
                "refund_due": 0,
                "payments": [],
                "shipments": [],
                "cancellation": None,
                "placed_at": time_of(row),
                "confirmed_at": None,
                "shipped_at": None,
                "delivered_at": None,
                "version": 0,
            }
        document = documents[order_id]
        _change(document, row["event_type"], data, time_of(row))
        assert row["version"] == document["version"] + 1
        document["version"] += 1
        document["last_event_at"] = time_of(row)
        document["item_count"] = len(document["items"])
        document["total_amount"] = sum(item["line_total"] for item in document["items"])
        document["currency_exponent"] = DIGITS.get(document["currency"], 2)
        left = document["total_amount"] - document["amount_paid"]
        document["amount_due"] = 0 if document["cancellation"] else left
    return documents


def _change(document: Document, event_type: str, data: dict[str, Any], at: str) -> None:
    if event_type == "OrderItemAdded":
        document["items"].append(_line(data["item"]))
    elif event_type == "OrderItemRemoved":
        document["items"] = [item for item in document["items"] if item["product_id"] != data["product_id"]]
    elif event_type == "ShippingAddressChanged":
        document["shipping_address_id"] = data["shipping_address_id"]
    elif event_type == "PaymentConfirmed":
        payment = {"payment_reference": data["payment_reference"], "amount": data["amount"], "captured_at": at}
        document |= {"status": "CONFIRMED", "payment_status": "paid", "amount_paid": data["amount"]}
        document |= {"payments": [payment], "confirmed_at": at}
    elif event_type == "OrderShipped":
        number, carrier = data["tracking_number"], data.get("carrier")
        shipment = {"tracking_number": number, "carrier": carrier, "shipped_at": at, "delivered_at": None}
        document |= {"status": "SHIPPED", "fulfilment_status": "shipped", "tracking_number": number}
        document |= {"shipments": [shipment], "shipped_at": at}
    elif event_type == "OrderDelivered":
        document |= {"status": "DELIVERED", "fulfilment_status": "delivered", "delivered_at": at}
        document["shipments"] = [{**shipment, "delivered_at": at} for shipment in document["shipments"]]
    elif event_type == "OrderCancelled":
        document |= {"status": "CANCELLED", "cancellation": {"reason": data["reason"], "at": at}}
        document["refund_due"] = data["refund_amount"]
        if data["refund_amount"]:
            document["payment_status"] = "refund_due"
    else:
        assert event_type == "OrderPlaced"


def _line(item: dict[str, Any]) -> dict[str, Any]:
    return {
        "product_id": item["product_id"],
        "product_name": item.get("product_name"),
        "quantity": item["quantity"],
        "unit_price": item["unit_price"],
        "line_total": item["quantity"] * item["unit_price"],
    }


def _client(url: str) -> Redis:
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


async def _compare(redis: Redis, prefix: str, documents: dict[str, Document]) -> None:
    await _compare_documents(redis, prefix, documents)
    await _compare_indexes(redis, prefix, documents)


async def _compare_documents(redis: Redis, prefix: str, documents: dict[str, Document]) -> None:
    stored: dict[str, Any] = {}
    keys = [key async for key in redis.scan_iter(match=f"{prefix}doc:*", count=1_000)]
    for key in keys:
        stored[key.removeprefix(f"{prefix}doc:")] = await redis.hgetall(key)
    assert stored.keys() == documents.keys(), _difference(stored.keys(), documents.keys())
    for order_id, document in documents.items():
        assert json.loads(stored[order_id]["document"]) == document, order_id
        summary = {name: document[name] for name in SUMMARY}
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
