"""Compares the read model `orders` in Redis with the log, while both move.

Documents and their entries are read together with the checkpoint they belong to, and compared with the log up to that
very checkpoint. Then every key is looked at for what the log does not know of.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import asyncpg
from redis.asyncio import Redis

from projector.verification import Comparison, Report, unseen
from projector.verification.plain import (
    PAGE,
    PlainOrder,
    count_orders,
    fold_orders,
    origins,
    pages_of_orders,
    partition_of,
)

STATUSES = ("PENDING", "CONFIRMED", "SHIPPED", "DELIVERED", "CANCELLED")
_DETAILS = {"items", "shipping_address_id", "tracking_number"}  # not in the summary
_PLACE_DIGITS = 15


# In one step, so that all is of one position.
# KEYS: meta, documents ..., lists ...    ARGV: number of documents, and for each list: how many places, place ...
_READ = """#!lua flags=no-writes
local documents, argument = tonumber(ARGV[1]), 2
local out = {redis.call('HGET', KEYS[1], 'position')}
for i = 2, #KEYS do
  if i <= documents + 1 then
    out[i] = redis.call('HGETALL', KEYS[i])
  else
    local last = argument + ARGV[argument]
    out[i] = redis.call('ZMSCORE', KEYS[i], unpack(ARGV, argument + 1, last))
    argument = last + 1
  end
end
return out
"""


class _Partition(NamedTuple):
    prefix: str  # of its keys
    number: int
    of: int

    def holds(self, order_id: str) -> bool:
        return partition_of(order_id, self.of) == self.number


async def compare(
    log: asyncpg.Connection[asyncpg.Record], redis: Redis, prefixes: Sequence[str], report: Report = unseen
) -> Comparison:
    """`prefixes` are those of the keys of each partition. Raises what redis and asyncpg raise, and ValueError."""
    comparison, total, done = Comparison(), await count_orders(log), 0
    report("comparing", done, total)
    partitions = [_Partition(prefix, number, len(prefixes)) for number, prefix in enumerate(prefixes)]
    async for order_ids in pages_of_orders(log):
        for partition in partitions:
            await _compare_page(log, redis, partition.prefix, [*filter(partition.holds, order_ids)], comparison)
        done += len(order_ids)
        report("comparing", done, max(done, total))
    for number, partition in enumerate(partitions, start=1):
        await _look_for_more(log, redis, partition, comparison)
        report("looking for others", number, len(partitions))
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
    keys = [prefix + "meta", *(f"{prefix}doc:{order_id}" for order_id in order_ids), *(prefix + name for name in asked)]
    arguments: list[int | str] = [len(order_ids)]
    for ids in asked.values():
        arguments += [len(ids), *(places[order_id] for order_id in ids)]
    position, *answers = await redis.register_script(_READ)(keys, arguments)
    comparison.position = int(position or 0)
    found: dict[str, set[str]] = {order_id: set() for order_id in order_ids}
    for (index, ids), scores in zip(asked.items(), answers[len(order_ids) :], strict=True):
        for order_id, score in zip(ids, scores, strict=True):
            if score is not None:
                found[order_id].add(index)
    expected = await fold_orders(log, order_ids, comparison.position)
    for order_id, fields in zip(order_ids, answers, strict=False):
        stored = dict(zip(fields[::2], fields[1::2], strict=True))
        _compare_one(order_id, expected.get(order_id), stored, found[order_id], comparison)


def _compare_one(
    order_id: str, order: PlainOrder | None, stored: dict[bytes, bytes], listed: set[str], comparison: Comparison
) -> None:
    comparison.compared += order is not None
    if b"parked" in stored:
        comparison.is_parked(order_id, stored[b"parked"])
        return
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
    log: asyncpg.Connection[asyncpg.Record], redis: Redis, partition: _Partition, comparison: Comparison
) -> None:
    """Documents of orders that there are not, places in lists where no such order belongs."""
    documents: list[str] = []
    pattern = "".join(f"[{c}]" if c in "*?[" else c for c in partition.prefix) + "*"
    async for key in redis.scan_iter(match=pattern, count=PAGE):
        name = key.decode().removeprefix(partition.prefix)
        if name.startswith("doc:"):
            documents.append(name.removeprefix("doc:"))
            if len(documents) == PAGE:
                await _known(log, partition, documents, comparison)
                documents = []
        elif name not in ("meta", "heartbeat", "parked", "retry"):
            await _look_into(log, redis, partition, name, comparison)
    await _known(log, partition, documents, comparison)


async def _known(
    log: asyncpg.Connection[asyncpg.Record], partition: _Partition, order_ids: list[str], comparison: Comparison
) -> None:
    for order_id in set(order_ids) - {*filter(partition.holds, await origins(log, order_ids))}:
        comparison.differs(f"order {order_id} is there, the log does not know it or it belongs to another partition")


async def _look_into(
    log: asyncpg.Connection[asyncpg.Record], redis: Redis, partition: _Partition, index: str, comparison: Comparison
) -> None:
    places: list[str] = []
    async for member, _ in redis.zscan_iter(partition.prefix + index, count=PAGE):
        places.append(member.decode())
        if len(places) == PAGE:
            await _belong(log, partition, index, places, comparison)
            places = []
    await _belong(log, partition, index, places, comparison)


async def _belong(
    log: asyncpg.Connection[asyncpg.Record],
    partition: _Partition,
    index: str,
    places: Sequence[str],
    comparison: Comparison,
) -> None:
    origin = await origins(log, [place[_PLACE_DIGITS:] for place in places])
    for place in places:
        order_id = place[_PLACE_DIGITS:]
        customer, at = origin.get(order_id, ("", datetime.min.replace(tzinfo=UTC)))
        if index not in _indexes(customer) or place != _place(at, order_id) or not partition.holds(order_id):
            comparison.differs(f"list {index} holds {place}, where no order belongs")


def _indexes(customer: str) -> set[str]:
    """Every list that an order of that customer may be in, whatever its status."""
    return set().union(*(_entries(customer, status) for status in STATUSES))


def _entries(customer: str, status: str) -> set[str]:
    return {"all", f"status:{status}", f"customer:{customer}", f"customer:{customer}:status:{status}"}


def _place(at: datetime, order_id: str) -> str:
    microseconds = (at - datetime(1, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    return f"{microseconds:015x}{order_id}"
