"""The log as JSON Lines, complete enough to recompute every hash."""

from __future__ import annotations

from collections.abc import Iterable
from typing import BinaryIO
from uuid import UUID

import msgspec

from cli.auditing.chain import genesis
from cli.auditing.database import Connection, read_hashes, read_log_head, read_rows
from cli.auditing.errors import CannotAudit
from cli.auditing.log_ids import first_id
from cli.auditing.rows import COLUMNS, Row, split
from cli.auditing.times import rfc3339


async def export(connection: Connection, first: int, last: int | None, output: BinaryIO) -> int:
    """Write the events from position `first` to `last` (None: the head now), both included. Returns their number.

    Raises CannotAudit, OSError of the output, and what asyncpg raises.
    """
    log_head = await read_log_head(connection)
    if len(log_head.rows) != 1:
        raise CannotAudit("log_head has no row: orders audit verify says more")
    end = log_head.last if last is None else min(last, log_head.last)
    before = await read_hashes(connection, [first - 1])
    previous = before.get(first - 1) if first > 1 else genesis(first_id(log_head.rows[0], log_head.id_changes)).hash
    count = 0

    def take(rows: Iterable[Row]) -> None:
        nonlocal previous, count
        for row in rows:
            output.write(_line(row, previous))
            previous = row.hash
            count += 1

    await read_rows(connection, first - 1, end, take)
    return count


def _line(row: Row, previous: bytes | None) -> bytes:
    """Texts are verbatim, as they were hashed: `data` and `metadata` are strings that hold JSON."""
    values = dict(zip(COLUMNS, split(row.body), strict=False))
    document: dict[str, object] = {}
    for column, value in values.items():
        document[column] = None if value is None else _readable(column, value)
    document["previous_hash"] = None if previous is None else previous.hex()
    document["hash"] = row.hash.hex()
    return msgspec.json.encode(document) + b"\n"


def _readable(column: str, value: bytes) -> object:
    match column:
        case "position" | "version" | "schema_version":
            return int.from_bytes(value, signed=True)
        case "event_id":
            return UUID(bytes=value)
        case "occurred_at" | "recorded_at":
            return rfc3339(int.from_bytes(value, signed=True))
        case _:
            return value.decode()
