"""The read model "revenue_by_day" in PostgreSQL: a line for each day, currency and status."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from time import monotonic
from typing import Any, TypeAlias

import asyncpg

from tests.independent_folds import orders
from tests.independent_folds.event_rows import Log, order_id_of, read_log

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
# (day, currency, status) -> (orders, placed, paid, cancelled)
Lines: TypeAlias = dict[tuple[str, str, str], tuple[int, int, int, int]]


async def assert_equals(log: Log, database_url: str, seconds: float) -> None:
    """The live generation holds the fold of the log, within the time."""
    expected, head = fold(log.rows), (log.log_id, log.position)
    deadline = monotonic() + seconds
    connection = await asyncpg.connect(database_url)
    try:
        while not (checkpoints := await _checkpoints(connection)) or {row[:2] for row in checkpoints} != {head}:
            assert monotonic() < deadline, f"revenue_by_day is at {checkpoints}, not at {head}"
            await asyncio.sleep(0.01)
        assert await _lines(connection, checkpoints[0][2]) == expected
    finally:
        await connection.close()


async def assert_is_a_fold(database_url: str) -> int:
    """Generation 1 holds the fold of the log up to its own checkpoint; returns that position, 0 where there is none."""
    log = await read_log(database_url)
    connection = await asyncpg.connect(database_url)
    try:
        checkpoint = await connection.fetchrow(
            "select log_id, position from read_models where projection = 'revenue_by_day' and generation = 1"
        )
        if checkpoint is None or checkpoint["log_id"] is None:
            return 0
        assert checkpoint["log_id"] == log.log_id
        position = int(checkpoint["position"])
        assert await _lines(connection, 1) == fold(log.rows[:position])
        return position
    finally:
        await connection.close()


def fold(rows: list[Any]) -> Lines:
    paid: defaultdict[str | None, int] = defaultdict(int)
    for row in rows:
        if row["event_type"] in ("PaymentConfirmed", "PaymentReceived", "PaymentCaptured"):
            paid[order_id_of(row)] += json.loads(row["data"])["amount"]
    lines: Lines = {}
    for order_id, document in orders.fold(rows).items():
        key = (document["placed_at"][:10], document["currency"], document["status"])
        count, placed, paid_so_far, cancelled = lines.get(key, (0, 0, 0, 0))
        total = document["total_amount"]
        lost = total if document["status"] == "CANCELLED" else 0
        lines[key] = (count + 1, placed + total, paid_so_far + paid[order_id], cancelled + lost)
    return lines


async def _lines(connection: Connection, generation: int) -> dict[Any, Any]:
    rows = await connection.fetch("select * from revenue_by_day where generation = $1", generation)
    return {
        (row["day"].isoformat(), row["currency"], row["status"]): tuple(
            int(row[name]) for name in ("orders", "placed", "paid", "cancelled")
        )
        for row in rows
    }


async def _checkpoints(connection: Connection) -> list[tuple[Any, ...]]:
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
