"""Compares the read model `revenue_by_day` in PostgreSQL with the log, both as one snapshot shows them."""

from __future__ import annotations

import json
from collections import defaultdict

import asyncpg

from projector.verification import Comparison
from projector.verification.plain import PlainOrder, fold_orders, pages_of_orders

NAME = "revenue_by_day"

_POSITION = "select position from read_models where projection = $1 and generation = $2"
_DOCUMENTS = """
select document_id, document::text as document from read_model_documents
where projection = $1 and generation = $2 and document_id = any($3)
"""
_COUNT = "select count(*) from read_model_documents where projection = $1 and generation = $2"
_LINES = "select day, currency, status, orders, placed, paid, cancelled from revenue_by_day where generation = $1"

Line = tuple[str, str, str]


async def compare(log: asyncpg.Connection[asyncpg.Record], generation: int) -> Comparison:
    """Raises what asyncpg raises, and ValueError for an event that it does not know."""
    async with log.transaction(isolation="repeatable_read", readonly=True):
        comparison = Comparison(await log.fetchval(_POSITION, NAME, generation) or 0)
        sums: defaultdict[Line, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        async for order_ids in pages_of_orders(log):
            orders = await fold_orders(log, order_ids, comparison.position)
            rows = await log.fetch(_DOCUMENTS, NAME, generation, order_ids)
            stored = {row["document_id"]: json.loads(row["document"]) for row in rows}
            for order_id, order in orders.items():
                comparison.compared += 1
                if stored.get(order_id) != (expected := _document(order)):
                    comparison.differs(f"order {order_id} is {stored.get(order_id)}, the log says {expected}")
                _count(order, sums)
        if (count := await log.fetchval(_COUNT, NAME, generation)) != comparison.compared:
            comparison.differs(f"there are {count} documents, the log says {comparison.compared}")
        found = {
            (row[0].isoformat(), row[1], row[2]): [int(amount) for amount in row[3:]]
            for row in await log.fetch(_LINES, generation)
        }
    for line in sorted(found.keys() | sums.keys()):
        if found.get(line) != sums.get(line):
            comparison.differs(f"line {line} is {found.get(line)}, the log says {sums.get(line)}")
    return comparison


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
