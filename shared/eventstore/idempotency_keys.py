"""The table of idempotency keys, which appends write: every SQL statement on it."""

from __future__ import annotations

from datetime import timedelta

from shared.eventstore.append_request import AppendResult, AppendStatus
from shared.eventstore.log import Connection

YOUNGEST_PURGED = timedelta(days=1)  # age of an Idempotency-Key
_FIND_KEY = (
    "select k.fingerprint, k.command_id, k.stream_id, k.version, k.position, h.log_id"
    " from idempotency_keys k cross join log_head h where h.only_row and k.key = $1"
)
_PURGE_KEYS = "select purge_idempotency_keys($1, $2)"


async def find_key(connection: Connection, key: str) -> tuple[bytes, AppendResult] | None:
    """(fingerprint, first acknowledgement) of an Idempotency-Key that is still stored."""
    row = await connection.fetchrow(_FIND_KEY, key)
    return None if row is None else (row["fingerprint"], AppendResult(AppendStatus.REPLAYED, *row[1:]))


async def purge_keys(connection: Connection, older_than: timedelta, at_most: int = 10_000) -> int:
    """Deletes Idempotency-Keys older than that, and than `YOUNGEST_PURGED`; returns how many."""
    return int(await connection.fetchval(_PURGE_KEYS, older_than, at_most))
