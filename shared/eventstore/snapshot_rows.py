"""The table of snapshots: every SQL statement on it."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from shared.eventstore.feed import COLUMNS
from shared.eventstore.log import PAGE, PAGE_BYTES, Connection, StoredEvent

_LOAD = f"""
with snapshot as materialized (
    select version, position, occurred_at, taken_at, state, mac from snapshots where stream_id = $1 and fingerprint = $2
)
select {COLUMNS} from stream_after($1, coalesce((select version from snapshot), 0), $3, $4)
union all
select position, null, version, null, null, null, state, null, occurred_at, taken_at, mac, null from snapshot
order by version
"""  # noqa: S608 - constants only
_SAVE_SNAPSHOT = "select save_snapshot($1, $2, $3, $4, $5, $6, $7)"
_GROWN = (
    "select stream_id from events where position > $1 and position <= $2 group by stream_id having max(version) >= $3"
)


class Snapshot(NamedTuple):
    """The state of an aggregate at `version`; `position` and `occurred_at` are those of the version's event. `mac`
    authenticates it (`shared.eventstore.snapshots`)."""

    version: int
    position: int
    occurred_at: datetime
    taken_at: datetime
    state: str
    mac: bytes


async def load_stream(
    connection: Connection, stream_id: str, fingerprint: bytes
) -> tuple[Snapshot | None, list[StoredEvent]]:
    """The latest snapshot of that shape and the first page of events after it, in one round trip."""
    rows = await connection.fetch(_LOAD, stream_id, fingerprint, PAGE, PAGE_BYTES)
    if rows and rows[0]["event_id"] is None:  # the snapshot sorts first: its version is below all that follow
        first = rows.pop(0)
        snapshot = Snapshot(
            first["version"],
            first["position"],
            first["occurred_at"],
            first["recorded_at"],
            first["data"],
            first["hash"],
        )
        return snapshot, [StoredEvent._make(row) for row in rows]
    return None, [StoredEvent._make(row) for row in rows]


async def save_snapshot(
    connection: Connection,
    stream_id: str,
    fingerprint: bytes,
    version: int,
    position: int,
    at: datetime,
    state: str,
    mac: bytes,
) -> None:
    """Saves the state unless a later one is saved, or the log has no such event."""
    await connection.execute(_SAVE_SNAPSHOT, stream_id, fingerprint, version, position, at, state, mac)


async def compacted_position(connection: Connection) -> int:
    return int(await connection.fetchval("select position from snapshot_compaction"))


async def streams_due_for_snapshot(connection: Connection, after: int, up_to: int, at_least: int) -> list[str]:
    """Streams with events in (after, up_to] that have reached `at_least` events there."""
    return [row["stream_id"] for row in await connection.fetch(_GROWN, after, up_to, at_least)]


async def finish_compaction(connection: Connection, up_to: int) -> None:
    """Records that the log was compacted up to a position."""
    await connection.execute("select finish_compaction($1)", up_to)


async def delete_stale_snapshots(
    connection: Connection, category: str, fingerprint: bytes, older_than: timedelta
) -> int:
    """Deletes the snapshots of a category of streams that have another shape and are older; returns how many."""
    return int(
        await connection.fetchval("select delete_stale_snapshots($1, $2, $3)", category, fingerprint, older_than)
    )
