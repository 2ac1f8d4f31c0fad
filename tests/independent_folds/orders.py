"""The read model "orders" in Redis: a document an order, and its indexes."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from datetime import datetime
from fractions import Fraction
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
    async with client_at(redis_url) as redis:
        prefixes = await catch_up(redis, "orders", [log.log_id.hex, str(log.position)], seconds)
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
    async with client_at(redis_url) as redis:
        log_id, position = await redis.hmget(prefix + "meta", ["log_id", "position"])
        if log_id is None or position is None:
            return 0
        assert log_id == log.log_id.hex
        documents = fold(log.rows[: int(position)])
        await _compare(redis, prefix, {order_id: made(document) for order_id, document in documents.items()})
    return int(position)


def fold(rows: list[Any]) -> dict[str, Document]:
    """Order id -> the document after all rows."""
    orders: dict[str, _Life] = {}
    for row in rows:
        if (order_id := order_id_of(row)) is None:
            continue
        if row["event_type"] == "OrderPlaced":
            assert order_id not in orders
            orders[order_id] = _Life()
        life = orders[order_id]
        assert row["version"] == life.document.get("version", 0) + 1
        life.add(order_id, row["event_type"], json.loads(row["data"]), time_of(row))
        life.document |= {"version": row["version"], "last_event_at": time_of(row)}
    return {order_id: life.document for order_id, life in orders.items()}


class _Life:
    """One order: its document, and the sums that follow from what happened so far."""

    def __init__(self) -> None:
        self.document: Document = {}
        self.reduced = 0  # what the order costs less than its total

    def add(self, order_id: str, event_type: str, data: dict[str, Any], at: str) -> None:
        if event_type in ("OrderItemsReserved", "OrderReservationExpired"):
            return  # the stock of the products shows it
        if event_type == "OrderPlaced":
            self.document = _placed(order_id, data, at)
        elif event_type.startswith(("Payment", "OrderConfirmed", "OrderCancelled")):
            self._pay(event_type, data, at)
        elif event_type.startswith(("OrderItem", "OrderLine")):
            _change_lines(self.document, event_type, data)
        elif event_type.startswith("Return"):
            self._return(event_type, data, at)
        else:
            _change(self.document, event_type, data, at)
        if event_type.startswith(("OrderShipped", "OrderDelivered", "ItemsShipped", "Return")):
            self.document["fulfilment_status"] = _fulfilment_status(self.document)
        self._sum()

    def _pay(self, event_type: str, data: dict[str, Any], at: str) -> None:
        document, reference = self.document, data.get("payment_reference")
        paid: Document = next((one for one in document["payments"] if one["payment_reference"] == reference), {})
        if event_type in ("PaymentConfirmed", "OrderConfirmed"):
            document |= {"status": "CONFIRMED", "confirmed_at": at}
        if event_type in ("PaymentConfirmed", "PaymentReceived", "PaymentAuthorised"):
            captured = event_type != "PaymentAuthorised"
            document["payments"].append(_payment(data, at if captured else None, None if captured else at))
        elif event_type == "PaymentCaptured":
            paid |= {"amount_captured": paid["amount_captured"] + data["amount"], "captured_at": at}
        elif event_type == "PaymentVoided":
            paid |= {"amount_voided": paid["amount_voided"] + data["amount"], "voided_at": at}
        elif event_type == "PaymentRefunded":
            paid["amount_refunded"] += data["amount"]
            self.reduced += data.get("price_reduction", 0)
            names = ("refund_id", "payment_reference", "amount", "reason")
            document["refunds"].append({**{name: data[name] for name in names}, "refunded_at": at})
        elif event_type == "OrderCancelled":
            document |= {"status": "CANCELLED", "cancellation": {"reason": data["reason"], "at": at}}
            document |= {"on_hold": False, "hold_reason": None}

    def _return(self, event_type: str, data: dict[str, Any], at: str) -> None:
        returns = self.document["returns"]
        if event_type == "ReturnRequested":
            lines = [{**line, "restocked": 0, "written_off": 0} for line in data["lines"]]
            requested = {"return_id": data["return_id"], "reason": data["reason"], "lines": lines}
            returns.append({**requested, "requested_at": at, "received_at": None})
            return
        [received] = [one for one in returns if one["return_id"] == data["return_id"]]
        received["received_at"] = at
        self.reduced += data["price_reduction"]
        for piece in data["lines"]:
            [line] = [one for one in received["lines"] if one["line_id"] == piece["line_id"]]
            line["restocked" if piece["restock"] else "written_off"] += piece["quantity"]

    def _sum(self) -> None:
        document = self.document
        payments, items = document["payments"], document["items"]
        total = sum(item["line_total"] for item in items) + sum(charge["amount"] for charge in document["charges"])
        payable = 0 if document["cancellation"] else total - self.reduced
        captured, refunded = (sum(one[f"amount_{name}"] for one in payments) for name in ("captured", "refunded"))
        left = [one["amount"] - one["amount_captured"] - one["amount_voided"] for one in payments]
        owed = captured - refunded - payable
        document |= {"item_count": len(items), "total_amount": total, "amount_payable": payable}
        document |= {"amount_paid": captured, "amount_refunded": refunded, "amount_authorised": sum(left)}
        document |= {"amount_due": max(-owed, 0), "refund_due": max(owed, 0)}
        document["currency_exponent"] = DIGITS.get(document["currency"], 2)
        document["payment_status"] = _payment_status(document)
        _share_discounts(document)


def _placed(order_id: str, data: dict[str, Any], at: str) -> Document:
    taken = {item["line_id"] for item in data["items"] if item.get("line_id")}
    items = [_line(item, item.get("line_id") or _number(nr, taken)) for nr, item in enumerate(data["items"], 1)]
    return {
        "order_id": order_id,
        "customer_id": data["customer_id"],
        "status": "PENDING",
        "currency": data.get("currency", "GBP"),
        "items": items,
        "charges": [{"label": None, "line_id": None, **charge} for charge in data.get("charges", [])],
        "shipping_address_id": data["shipping_address_id"],
        **{name: data.get(name) for name in ("shipping_address", "external_reference", "note", "metadata")},
        **dict.fromkeys(("tracking_number", "hold_reason", "cancellation"), None),
        **dict.fromkeys(("confirmed_at", "shipped_at", "delivered_at"), None),
        "fulfilment_status": "unfulfilled",
        "on_hold": False,
        "payments": [],
        "refunds": [],
        "shipments": [],
        "returns": [],
        "placed_at": at,
    }


def _number(number: int, taken: set[str]) -> str:
    """The number or the next that is free, which is taken then."""
    while str(number) in taken:
        number += 1
    if taken:
        taken.add(str(number))
    return str(number)


def _line(item: dict[str, Any], line_id: str) -> dict[str, Any]:
    return {
        **{name: item[name] for name in ("sku", "metadata") if item.get(name) is not None},
        "line_id": line_id,
        "product_id": item["product_id"],
        "product_name": item.get("product_name"),
        "quantity": item["quantity"],
        "unit_price": item["unit_price"],
        "line_total": item["quantity"] * item["unit_price"],
    }


def _payment(data: dict[str, Any], captured_at: str | None, authorised_at: str | None) -> dict[str, Any]:
    return {
        "payment_reference": data["payment_reference"],
        "method": data.get("method"),
        "account_id": data.get("account_id"),
        "amount": data["amount"],
        "amount_captured": data["amount"] if captured_at else 0,
        "amount_voided": 0,
        "amount_refunded": 0,
        "authorised_at": authorised_at,
        "captured_at": captured_at,
        "voided_at": None,
    }


def _change_lines(document: Document, event_type: str, data: dict[str, Any]) -> None:
    items = document["items"]
    if event_type == "OrderItemAdded":
        taken = {item["line_id"] for item in items}
        items.append(_line(data["item"], data["item"].get("line_id") or _number(len(items) + 1, taken)))
    elif event_type == "OrderItemRemoved":
        items[:] = [item for item in items if item["product_id"] != data["product_id"]]
    else:
        assert event_type == "OrderLineQuantityChanged"
        [line] = [item for item in items if item["line_id"] == data["line_id"]]
        line |= {"quantity": data["quantity"], "line_total": data["quantity"] * line["unit_price"]}
        items[:] = [item for item in items if item["quantity"]]
    left = {None, *(item["line_id"] for item in items)}
    document["charges"] = [charge for charge in document["charges"] if charge["line_id"] in left]


def _change(document: Document, event_type: str, data: dict[str, Any], at: str) -> None:
    shipments = document["shipments"]
    if event_type == "ShippingAddressChanged":
        document["shipping_address_id"] = data["shipping_address_id"]
        document["shipping_address"] = data.get("shipping_address")
    elif event_type in ("OrderHeld", "OrderHoldReleased"):
        document |= {"on_hold": event_type == "OrderHeld", "hold_reason": data.get("reason")}
    elif event_type in ("OrderShipped", "ItemsShipped"):
        lines, shipment_id = data.get("lines"), data.get("shipment_id")
        if event_type == "OrderShipped":
            document |= {"status": "SHIPPED", "shipped_at": at}
            lines = _left_to_ship(document)
            shipment_id = shipment_id or _number(len(shipments) + 1, {one["shipment_id"] for one in shipments})
        document["tracking_number"] = data["tracking_number"]
        shipment = {"shipment_id": shipment_id, "tracking_number": data["tracking_number"]}
        shipment |= {"carrier": data.get("carrier"), "lines": lines, "shipped_at": at, "delivered_at": None}
        shipments.append(shipment)
    elif event_type == "ShipmentDelivered":
        [delivered] = [one for one in shipments if one["shipment_id"] == data["shipment_id"]]
        delivered["delivered_at"] = at
    else:
        assert event_type == "OrderDelivered"
        document |= {"status": "DELIVERED", "delivered_at": at}
        for shipment in shipments:
            shipment["delivered_at"] = shipment["delivered_at"] or at


def _left_to_ship(document: Document) -> list[dict[str, Any]]:
    """What was shipped and then removed, which no rule allows but a log could hold, is not left."""
    left = {item["line_id"]: item["quantity"] for item in document["items"]}
    for shipment in document["shipments"]:
        for line in shipment["lines"]:
            if line["line_id"] in left:
                left[line["line_id"]] -= line["quantity"]
    return [{"line_id": line_id, "quantity": quantity} for line_id, quantity in left.items() if quantity]


def _payment_status(document: Document) -> str:
    if document["refund_due"]:
        return "refund_due"
    if document["amount_refunded"]:
        return "refunded" if document["amount_refunded"] == document["amount_paid"] else "partly_refunded"
    if document["amount_paid"]:
        return "partly_paid" if document["amount_due"] else "paid"
    if document["amount_authorised"]:
        return "authorised"
    free = not document["amount_due"] and any(one["amount"] == 0 for one in document["payments"])
    return "paid" if free else "unpaid"


def _fulfilment_status(document: Document) -> str:
    ordered = sum(item["quantity"] for item in document["items"])
    back = sum(line["restocked"] + line["written_off"] for one in document["returns"] for line in one["lines"])
    if back:
        return "returned" if back == ordered else "partly_returned"
    if document["status"] in ("SHIPPED", "DELIVERED"):
        return str(document["status"]).lower()
    return "partly_shipped" if document["shipments"] else "unfulfilled"


def _share_discounts(document: Document) -> None:
    """Discounts of the order go to its lines by their amounts, and what exceeds these to its other charges."""
    charges = document["charges"]
    for item in document["items"]:
        item.pop("charged_amount", None)
    if not charges:
        return
    shares = []
    for item in document["items"]:
        own = sum(charge["amount"] for charge in charges if charge["line_id"] == item["line_id"])
        shares.append((item, item["line_total"] + own))
    others = []
    discount = 0
    for charge in charges:
        charge["charged_amount"] = 0
        if charge["line_id"] is None and charge["kind"] == "discount":
            discount -= charge["amount"]
        elif charge["line_id"] is None:
            others.append((charge, charge["amount"]))
    first = min(discount, sum(amount for _, amount in shares))
    _take(first, shares)
    _take(discount - first, others)


def _take(discount: int, shares: list[tuple[dict[str, Any], int]]) -> None:
    whole = sum(amount for _, amount in shares)
    exact = [Fraction(discount * amount, whole) if whole else Fraction(0) for _, amount in shares]
    taken = [int(share) for share in exact]
    by_remainder = sorted(range(len(shares)), key=lambda nr: exact[nr] - taken[nr], reverse=True)
    for nr in by_remainder[: discount - sum(taken)]:
        taken[nr] += 1
    for (entry, amount), share in zip(shares, taken, strict=True):
        entry["charged_amount"] = amount - share


def client_at(url: str) -> Redis:
    """A client of the server or the Cluster there, which answers in text."""
    if "+cluster" in url:
        return cast("Redis", RedisCluster.from_url(url.replace("+cluster", ""), decode_responses=True))
    return Redis.from_url(url, decode_responses=True)


async def read_documents(log: Log, redis_url: str, read_model: str, seconds: float) -> dict[str, Document]:
    """By id, each from the partition that it belongs to, once all of the log is there."""
    found: dict[str, Document] = {}
    async with client_at(redis_url) as redis:
        prefixes = await catch_up(redis, read_model, [log.log_id.hex, str(log.position)], seconds)
        for number, prefix in enumerate(prefixes):
            async for key in redis.scan_iter(match=f"{prefix}doc:*", count=1_000):
                document_id = key.removeprefix(f"{prefix}doc:")
                assert crc32(document_id.encode()) % len(prefixes) == number
                found[document_id] = json.loads(await redis.hget(key, "document") or "null")
    return found


async def catch_up(redis: Redis, read_model: str, head: list[str], seconds: float) -> list[str]:
    """The prefixes of the keys of the live generation's partitions, once all are there."""
    deadline, generations = monotonic() + seconds, f"{{{read_model}.0}}.generations"
    while True:
        live = int(await redis.hget(generations, "live") or 1)
        partitions = int(await redis.hget(generations, f"partitions:{live}") or 1)
        prefixes = [f"{{{read_model}.{nr}}}" + (":" if live == 1 else f".{live}:") for nr in range(partitions)]
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
        assert json.loads(_document(stored[order_id])) == document, order_id
        summary = {name: document[name] for name in SUMMARY}
        assert json.loads(stored[order_id]["summary"]) == summary, order_id
        assert stored[order_id]["version"] == str(document["version"]), order_id


def _document(fields: dict[str, str]) -> str:
    """The text of a document, which is stored in pieces of 16 KiB; the first one that is smaller is the last."""
    text = piece = fields["document"]
    number = 1
    while len(piece.encode()) == 16 * 1024 and f"document.{number}" in fields:
        piece = fields[f"document.{number}"]
        text += piece
        number += 1
    return text


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
