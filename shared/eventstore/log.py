"""The event log: every SQL statement on events, idempotency keys and snapshots.

Positions are dense and visible in commit order (the append function locks the log's head row), so a reader's cursor
is one number, and "checkpoint = head" is an exact statement.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum
from itertools import chain
from typing import NamedTuple, TypeAlias
from uuid import UUID

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from shared.eventstore.asyncpg_arrays import array_or_null
from shared.eventstore.token import ConsistencyToken

PAGE = 1_000  # events read at a time
PAGE_BYTES = 2 * 2**20  # of their JSON; a page ends with the event that reaches it
_LONGEST_CHARACTER = 4  # bytes, in UTF-8
YOUNGEST_PURGED = timedelta(days=1)  # age of an Idempotency-Key


class StoredEvent(NamedTuple):
    """One row of the log, as stored: `data` and `metadata` are the JSON texts that were hashed."""

    position: int
    stream_id: str
    version: int
    event_id: UUID
    event_type: str
    schema_version: int
    data: str
    metadata: str
    occurred_at: datetime
    recorded_at: datetime
    hash: bytes
    owner: str | None = None  # of its stream


class Page(NamedTuple):
    """Events in order without a gap; `more`: there may be others after them already."""

    events: list[StoredEvent]
    more: bool


class NewEvent(NamedTuple):
    event_id: UUID
    event_type: str
    schema_version: int
    data: str
    metadata: str
    occurred_at: datetime


class StreamAppend(NamedTuple):
    """What a command appends to one stream that is still at `expected_version` (0: no stream yet).

    Without events, only the version is checked. `owner` counts where the first event is among them: every event of the
    stream then carries it.
    """

    stream_id: str
    expected_version: int
    events: Sequence[NewEvent] = ()
    owner: str | None = None


class AppendRequest(NamedTuple):
    """What one command appends, to all of its streams or to none of them.

    `streams` begins with the command's own stream and names each stream once. Their events get consecutive positions in
    this order. `log_id` is the log that the command was decided under: a log with another id answers `CONFLICT`.
    """

    streams: Sequence[StreamAppend]
    command_id: UUID
    idempotency_key: str | None = None
    fingerprint: bytes | None = None
    log_id: UUID | None = None

    @classmethod
    def of_stream(
        cls,
        stream_id: str,
        expected_version: int,
        command_id: UUID,
        events: Sequence[NewEvent] = (),
        idempotency_key: str | None = None,
        fingerprint: bytes | None = None,
        log_id: UUID | None = None,
        owner: str | None = None,
    ) -> AppendRequest:
        """The request of a command that names its own stream alone."""
        own = StreamAppend(stream_id, expected_version, events, owner)
        return cls((own,), command_id, idempotency_key, fingerprint, log_id)


class AppendStatus(StrEnum):
    APPENDED = "appended"
    CONFLICT = "conflict"
    REPLAYED = "replayed"
    KEY_REUSED = "key_reused"


_STATUSES = {status.value: status for status in AppendStatus}  # `AppendStatus(…)` takes four times as long


class AppendResult(NamedTuple):
    """What became of one `AppendRequest`.

    `stream_id` is the command's own stream and `version` that of its last event. `position` is that of the request's
    last event, or of the own stream's where the request appended none. For a replay, all of them and `command_id` are
    those of the first acknowledgement. `log_id` is that of the log that answered.
    """

    status: AppendStatus
    command_id: UUID
    stream_id: str
    version: int
    position: int
    log_id: UUID

    @property
    def token(self) -> ConsistencyToken:
        return ConsistencyToken(self.log_id, self.position)


class Snapshot(NamedTuple):
    """The state of an aggregate at `version`; `position` and `occurred_at` are those of the version's event. `mac`
    authenticates it (`shared.eventstore.snapshots`)."""

    version: int
    position: int
    occurred_at: datetime
    taken_at: datetime
    state: str
    mac: bytes


class Head(NamedTuple):
    """The end of the log; position 0 is the empty log."""

    log_id: UUID
    position: int
    recorded_at: datetime | None

    @property
    def token(self) -> ConsistencyToken:
        return ConsistencyToken(self.log_id, self.position)


class Lag(NamedTuple):
    """`seconds` since the oldest event after `position` was recorded; 0.0 when there is none, None when that time is
    not known."""

    head: int
    position: int
    seconds: float | None

    @property
    def events(self) -> int:
        return self.head - self.position


_COLUMNS = (
    "position, stream_id, version, event_id, event_type, schema_version, data, metadata,"
    " occurred_at, recorded_at, hash, owner"
)
_APPEND = "select * from append_group($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)"
_READ_STREAM = f"select {_COLUMNS} from stream_after($1, $2, $3, $4)"  # noqa: S608 - constants only
_READ_VERSION = "select coalesce(max(version), 0) from events where stream_id = $1"


def bounded_page(where: str, order: str, limit: str, max_bytes: str) -> str:
    """A statement that reads at most `limit` events in an order, none after those whose JSON reaches `max_bytes`."""
    # Sums the sizes of events before each: the page ends with the event that reaches the bound.
    return f"""
        select {_COLUMNS} from (
            select {_COLUMNS}, sum(octet_length(data::text) + octet_length(metadata::text))
                over (order by {order} rows between unbounded preceding and 1 preceding) as bytes_before
            from (select {_COLUMNS} from events where {where} order by {order} limit {limit}) page
        ) sized
        where coalesce(bytes_before, 0) < {max_bytes} order by {order}
    """  # noqa: S608 - constants only


_READ_ALL = f"select {_COLUMNS} from events_after($1, $2, $3)"  # noqa: S608 - constants only
_TAKES_WRITES = "select not current_setting('transaction_read_only')::boolean from log_head where only_row"
_HEAD = "select log_id, position, nullif(recorded_at, '-infinity') from log_head where only_row"
_FIND_KEY = (
    "select k.fingerprint, k.command_id, k.stream_id, k.version, k.position, h.log_id"
    " from idempotency_keys k cross join log_head h where h.only_row and k.key = $1"
)
_RECORDED_BY = "select recorded_at < $2 or ($3 and recorded_at = $2) from events where position = $1"
_PURGE_KEYS = "select purge_idempotency_keys($1, $2)"
# A token of another log, or of events that a restore lost, counts as position 0. A time in the future says nothing of
# an age: the clock was ahead when the event was recorded.
_LAG = """
select h.position, h.shown, case
    when h.shown = h.position then 0
    when e.recorded_at <= clock_timestamp() then extract(epoch from clock_timestamp() - e.recorded_at)
end::float8
from (
    select position, case when log_id = $1 and position >= $2 then $2 else 0 end as shown from log_head where only_row
) h
left join events e on e.position = h.shown + 1
"""

_LOAD = f"""
with snapshot as materialized (
    select version, position, occurred_at, taken_at, state, mac from snapshots where stream_id = $1 and fingerprint = $2
)
select {_COLUMNS} from stream_after($1, coalesce((select version from snapshot), 0), $3, $4)
union all
select position, null, version, null, null, null, state, null, occurred_at, taken_at, mac, null from snapshot
order by version
"""  # noqa: S608 - constants only
_SAVE_SNAPSHOT = "select save_snapshot($1, $2, $3, $4, $5, $6, $7)"
_GROWN = (
    "select stream_id from events where position > $1 and position <= $2 group by stream_id having max(version) >= $3"
)

Connection: TypeAlias = (
    "asyncpg.Connection[asyncpg.Record] | asyncpg.Pool[asyncpg.Record] | PoolConnectionProxy[asyncpg.Record]"
)

CHANNEL = "events"  # NOTIFY: a hint that the head moved; readers also poll


async def append_group(connection: Connection, group: Sequence[AppendRequest]) -> list[AppendResult]:
    """Appends a group of requests in one transaction; the results come in the group's order.

    A request that names a stream of an earlier one expects the version which that one leads to. Where the earlier one
    brings events for the stream and is not appended, the later one ends as `CONFLICT`.

    Keys must be distinct within the group. When the connection is lost on the way, the outcome of every request in the
    group is unknown; the caller has to say so.
    """
    if not group:
        return []
    of_requests, command_ids, keys, fingerprints, log_ids = zip(*group, strict=True)
    of_streams = list(chain.from_iterable(of_requests))
    names, expected_versions, of_each, owners = zip(*of_streams, strict=True)
    events = list(chain.from_iterable(of_each))
    stream_ids: Sequence[str] = names
    stream_owners: Sequence[str | None] = owners
    own_streams: Sequence[str] = names
    named_commands: Sequence[int] = ()
    named_streams: Sequence[int] = ()
    if len(set(names)) < len(names):
        numbers: dict[str, int] = {}
        named_streams = [numbers.setdefault(name, len(numbers) + 1) for name in names]
        stream_ids = list(numbers)
        # Where the first of its requests that brings events is not appended, no other is: a stream has one owner.
        named_owners = {name: owner for name, owner in zip(reversed(names), reversed(owners), strict=True) if owner}
        stream_owners = [named_owners.get(name) for name in stream_ids]
    if len(names) > len(group):
        named_commands = _owners(of_requests)
        own_streams = [streams[0].stream_id for streams in of_requests]
    columns = (
        stream_ids,
        stream_owners,
        command_ids,
        keys,
        fingerprints,
        log_ids,
        named_commands,
        named_streams,
        expected_versions,
        _owners(of_each),
        *(zip(*events, strict=True) if events else [()] * len(NewEvent._fields)),
    )
    row = await connection.fetchrow(_APPEND, *map(array_or_null, columns))
    assert row is not None, "append_group answers one row"
    log_id, statuses, versions, positions, first_command_ids, first_stream_ids = row
    results = [
        AppendResult(_STATUSES[status], command_id, own_stream, version, position, log_id)
        for status, command_id, own_stream, version, position in zip(
            statuses, command_ids, own_streams, versions, positions, strict=True
        )
    ]
    if first_command_ids is not None:
        for nr, (command_id, stream_id) in enumerate(zip(first_command_ids, first_stream_ids, strict=True)):
            if command_id is not None:
                results[nr] = results[nr]._replace(command_id=command_id, stream_id=stream_id)
    return results


def _owners(owned: Sequence[Sequence[object]]) -> list[int]:
    """For each element of each sequence, the 1-based number of the sequence that it is in."""
    return [nr for nr, elements in enumerate(owned, start=1) for _ in elements]


async def read_stream(connection: Connection, stream_id: str, after_version: int = 0) -> AsyncIterator[StoredEvent]:
    """The events of one stream after a version, in order. One round trip a page; no lock, no transaction is held
    between pages."""
    while True:
        events = await read_stream_page(connection, stream_id, after_version, PAGE)
        for event in events:
            yield event
        if is_last_page(events, PAGE):
            return
        after_version = events[-1].version


async def read_stream_page(
    connection: Connection, stream_id: str, after_version: int, limit: int, max_bytes: int = PAGE_BYTES
) -> list[StoredEvent]:
    """At most `limit` events of one stream after a version, in order; none after those whose JSON reaches
    `max_bytes`."""
    rows = await connection.fetch(_READ_STREAM, stream_id, after_version, limit, max_bytes)
    return [StoredEvent._make(row) for row in rows]


def is_last_page(events: Sequence[StoredEvent], limit: int, max_bytes: int = PAGE_BYTES) -> bool:
    """Whether a page that was read within these bounds ends before both, so that there were no more events."""
    return len(events) < limit and json_size(events) * _LONGEST_CHARACTER < max_bytes


def json_size(events: Sequence[StoredEvent]) -> int:
    """Of their JSON, in characters."""
    return sum([len(event.data) + len(event.metadata) for event in events])


async def read_version(connection: Connection, stream_id: str) -> int:
    """The version of a stream's last event; 0 when there is no such stream."""
    return int(await connection.fetchval(_READ_VERSION, stream_id))


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


async def read_all(connection: Connection, after: int = 0, page: int = PAGE) -> AsyncIterator[StoredEvent]:
    """Every event after a position, up to where the log ended when the last page was read."""
    while batch := await read_batch(connection, after, page):
        for event in batch:
            yield event
        if is_last_page(batch, page):
            return
        after = batch[-1].position


async def read_batch(connection: Connection, after: int, limit: int, max_bytes: int = PAGE_BYTES) -> list[StoredEvent]:
    """At most `limit` events after a position, in order; none after those whose JSON reaches `max_bytes`."""
    return (await read_page(connection, after, limit, max_bytes)).events


async def read_page(connection: Connection, after: int, limit: int, max_bytes: int = PAGE_BYTES) -> Page:
    """As `read_batch`, and whether there may be more."""
    return as_page(await connection.fetch(_READ_ALL, after, limit, max_bytes), limit, max_bytes)


def as_page(rows: Iterable[asyncpg.Record], limit: int, max_bytes: int) -> Page:
    """Of rows that were read with these bounds."""
    events = [StoredEvent._make(row) for row in rows]
    return Page(events, not is_last_page(events, limit, max_bytes))


async def position_at(connection: Connection, at: datetime, head: int, *, inclusive: bool) -> int:
    """The position of the last of the first `head` events that was recorded before `at`, or at it if `inclusive`.

    A binary search: the time never decreases with the position.
    """
    low, high = 0, head
    while low < high:
        middle = (low + high + 1) // 2
        if await connection.fetchval(_RECORDED_BY, middle, at, inclusive):
            low = middle
        else:
            high = middle - 1
    return low


async def takes_writes(connection: Connection) -> bool:
    """Whether the log can be read and its server takes writes: it is no standby and was not demoted."""
    return bool(await connection.fetchval(_TAKES_WRITES))


async def read_head(connection: Connection) -> Head:
    row = await connection.fetchrow(_HEAD)
    assert row is not None, "log_head has exactly one row"
    return Head._make(row)


async def read_lag(connection: Connection, shown: ConsistencyToken | None) -> Lag:
    """How far a read model that shows the log up to `shown` is behind the log's head."""
    row = await connection.fetchrow(
        _LAG, None if shown is None else shown.log_id, 0 if shown is None else shown.position
    )
    assert row is not None, "log_head has exactly one row"
    return Lag._make(row)


async def find_key(connection: Connection, key: str) -> tuple[bytes, AppendResult] | None:
    """(fingerprint, first acknowledgement) of an Idempotency-Key that is still stored."""
    row = await connection.fetchrow(_FIND_KEY, key)
    return None if row is None else (row["fingerprint"], AppendResult(AppendStatus.REPLAYED, *row[1:]))


async def purge_keys(connection: Connection, older_than: timedelta, at_most: int = 10_000) -> int:
    """Deletes Idempotency-Keys older than that, and than `YOUNGEST_PURGED`; returns how many."""
    return int(await connection.fetchval(_PURGE_KEYS, older_than, at_most))
