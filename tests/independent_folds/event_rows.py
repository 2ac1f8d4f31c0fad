"""The rows of the event log, as SQL returns them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import asyncpg


class Log(NamedTuple):
    """`rows` are all of them, in order; the last one is at `position`."""

    rows: list[Any]
    log_id: UUID
    position: int


async def read_log(database_url: str) -> Log:
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
    return Log(rows, head["log_id"], head["position"])


def order_id_of(row: Any) -> str | None:
    """None where the event is of another aggregate."""
    return id_of(row, "order")


def id_of(row: Any, category: str) -> str | None:
    """The id of the aggregate; None where it is of another category."""
    found, _, aggregate_id = row["stream_id"].partition("-")
    return aggregate_id if found == category else None


def time_of(row: Any) -> str:
    """When the event happened, as the API writes it."""
    at: datetime = row["occurred_at"]
    return at.astimezone(UTC).isoformat().replace("+00:00", "Z")
