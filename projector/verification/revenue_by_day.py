"""Compares the read model `revenue_by_day` in PostgreSQL with the log, both as one snapshot shows them."""

from __future__ import annotations

import json
from collections import defaultdict

import asyncpg

from projector.verification import Comparison, Report, unseen
from projector.verification.plain import PlainOrder, count_orders, fold_orders, pages_of_orders, partition_of

NAME = "revenue_by_day"

_POSITION = "select position from read_models where projection = $1 and generation = $2"
_DOCUMENTS = """
select document_id, document::text as document from read_model_documents
where projection = $1 and generation = $2 and document_id = any($3)
"""
_PARKED = """
select document_id, poison::text as poison from read_model_parked where projection = any($1) and generation = $2
"""
_COUNT = "select count(*) from read_model_documents where projection = any($1) and generation = $2"
_LINES = "select day, currency, status, orders, placed, paid, cancelled from revenue_by_day where generation = $1"

Line = tuple[str, str, str]


async def compare(
    log: asyncpg.Connection[asyncpg.Record], generation: int, partitions: int = 1, report: Report = unseen
) -> Comparison:
    """Raises what asyncpg raises, and ValueError for an event that it does not know."""
    async with log.transaction(isolation="repeatable_read", readonly=True):
        names = [NAME, *(f"{NAME}.{number}" for number in range(1, partitions))]
        positions = [await log.fetchval(_POSITION, name, generation) or 0 for name in names]
        comparison, total, done = Comparison(min(positions)), await count_orders(log), 0
        report("comparing", done, total)
        sums: defaultdict[Line, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        parked = {row["document_id"]: row["poison"] for row in await log.fetch(_PARKED, names, generation)}
        async for page in pages_of_orders(log):
            for number, (name, position) in enumerate(zip(names, positions, strict=True)):
                order_ids = [order_id for order_id in page if partition_of(order_id, partitions) == number]
                orders = await fold_orders(log, order_ids, position)
                rows = await log.fetch(_DOCUMENTS, name, generation, order_ids)
                stored = {row["document_id"]: json.loads(row["document"]) for row in rows}
                for order_id, order in orders.items():
                    _compare_one(order_id, order, stored.get(order_id), parked, comparison)
                    _count(order, sums)
            done += len(page)
            report("comparing", done, total)
        if (count := await log.fetchval(_COUNT, names, generation)) != comparison.compared:
            comparison.differs(f"there are {count} documents, the log says {comparison.compared}")
        found = {
            (row[0].isoformat(), row[1], row[2]): [int(amount) for amount in row[3:]]
            for row in await log.fetch(_LINES, generation)
        }
    for line in sorted(found.keys() | sums.keys()):
        if found.get(line) != sums.get(line):
            comparison.differs(f"line {line} is {found.get(line)}, the log says {sums.get(line)}")
    return comparison


def _compare_one(
    order_id: str, order: PlainOrder, stored: object, parked: dict[str, str], comparison: Comparison
) -> None:
    comparison.compared += 1
    if order_id in parked:
        comparison.is_parked(order_id, parked[order_id])
    elif stored != (expected := _document(order)):
        comparison.differs(f"order {order_id} is {stored}, the log says {expected}")


def _document(order: PlainOrder) -> dict[str, object]:
    totals: dict[str, int] = {}
    for item in order["items"]:
        totals[item["product_id"]] = totals.get(item["product_id"], 0) + item["line_total"]
    return {
        "day": order["placed_at"][:10],
        "currency": order["currency"],
        "status": order["status"],
        "totals": totals,
        "paid": order["paid"],
        "version": order["version"],
    }


def _count(order: PlainOrder, sums: defaultdict[Line, list[int]]) -> None:
    cost = order["total_amount"]
    share = (1, cost, order["paid"], cost if order["status"] == "CANCELLED" else 0)
    line = sums[order["placed_at"][:10], order["currency"], order["status"]]
    for nr, amount in enumerate(share):
        line[nr] += amount
