"""The event log: every SQL statement on events. What reads pages, a head or a lag reads those of any feed.

Positions are dense and visible in commit order (the append function locks the log's head row), so a reader's cursor
is one number, and "checkpoint = head" is an exact statement.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import datetime
from itertools import chain
from typing import NamedTuple, TypeAlias
from uuid import UUID

import asyncpg
from asyncpg.pool import PoolConnectionProxy

from shared.eventstore.append_request import AppendRequest, AppendResult, AppendStatus, NewEvent, StreamAppend
from shared.eventstore.asyncpg_arrays import array_or_null
from shared.eventstore.feed import EVENT_LOG, Feed
from shared.eventstore.token import ConsistencyToken

PAGE = 1_000  # events read at a time
PAGE_BYTES = 2 * 2**20  # of their JSON; a page ends with the event that reaches it
_STATUSES = {status.value: status for status in AppendStatus}  # `AppendStatus(…)` takes four times as long
_LONGEST_CHARACTER = 4  # bytes, in UTF-8


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


_APPEND = "select * from append_group($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18)"
_EXISTING = (
    "select stream_id from unnest($1::text[]) as named (stream_id)"
    " where (select version from events e where e.stream_id = named.stream_id order by version limit 1) = 1"
)
_READ_VERSION = (
    "select case when $2::text is null or owner = $2 then version else 0 end"
    " from events where stream_id = $1 order by version desc limit 1"
)
_TAKES_WRITES = "select not current_setting('transaction_read_only')::boolean from log_head where only_row"
_RECORDED_BY = "select recorded_at < $2 or ($3 and recorded_at = $2) from events where position = $1"

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
    absent: list[tuple[str, int]] = []
    streams_of_requests: Sequence[Sequence[StreamAppend]] = of_requests
    if max(map(len, of_requests)) > 1:
        streams_of_requests, absent = _take_out_absent(of_requests)
    of_streams = list(chain.from_iterable(streams_of_requests))
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
        named_commands = _owners(streams_of_requests)
        own_streams = [streams[0].stream_id for streams in of_requests]
    absent_streams, absent_commands = zip(*absent, strict=True) if absent else ((), ())
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
        absent_streams,
        absent_commands,
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


def _take_out_absent(
    of_requests: Sequence[Sequence[StreamAppend]],
) -> tuple[list[list[StreamAppend]], list[tuple[str, int]]]:
    """The streams of each request, without those that it expects to be absent; and of these the name and the 1-based
    number of the request. One that a request of the group brings events for stays: the group's order decides."""
    changed = {stream.stream_id for streams in of_requests for stream in streams if stream.events}
    kept, absent = [], []
    for nr, streams in enumerate(of_requests, start=1):
        others = [streams[0]]
        for stream in streams[1:]:
            if stream.events or stream.expected_version or stream.stream_id in changed:
                others.append(stream)
            else:
                absent.append((stream.stream_id, nr))
        kept.append(others)
    return kept, absent


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
    connection: Connection,
    stream_id: str,
    after_version: int,
    limit: int,
    max_bytes: int = PAGE_BYTES,
    *,
    feed: Feed = EVENT_LOG,
) -> list[StoredEvent]:
    """At most `limit` events of one stream after a version, in order; none after those whose JSON reaches
    `max_bytes`."""
    rows = await connection.fetch(feed.stream_page, stream_id, after_version, limit, max_bytes)
    return [StoredEvent._make(row) for row in rows]


def is_last_page(events: Sequence[StoredEvent], limit: int, max_bytes: int = PAGE_BYTES) -> bool:
    """Whether a page that was read within these bounds ends before both, so that there were no more events."""
    return len(events) < limit and json_size(events) * _LONGEST_CHARACTER < max_bytes


def json_size(events: Sequence[StoredEvent]) -> int:
    """Of their JSON, in characters."""
    return sum([len(event.data) + len(event.metadata) for event in events])


async def read_version(connection: Connection, stream_id: str, owner: str | None = None) -> int:
    """The version of a stream's last event; 0 when there is no such stream, or it is of another owner than `owner`."""
    return int(await connection.fetchval(_READ_VERSION, stream_id, owner) or 0)


async def existing(connection: Connection, streams: Sequence[str]) -> set[str]:
    """Those that have an event."""
    return {row["stream_id"] for row in await connection.fetch(_EXISTING, streams)}


async def read_all(connection: Connection, after: int = 0, page: int = PAGE) -> AsyncIterator[StoredEvent]:
    """Every event after a position, up to where the log ended when the last page was read."""
    while batch := await read_batch(connection, after, page):
        for event in batch:
            yield event
        if is_last_page(batch, page):
            return
        after = batch[-1].position


async def read_batch(
    connection: Connection, after: int, limit: int, max_bytes: int = PAGE_BYTES, *, feed: Feed = EVENT_LOG
) -> list[StoredEvent]:
    """At most `limit` events after a position, in order; none after those whose JSON reaches `max_bytes`."""
    return (await read_page(connection, after, limit, max_bytes, feed=feed)).events


async def read_page(
    connection: Connection, after: int, limit: int, max_bytes: int = PAGE_BYTES, *, feed: Feed = EVENT_LOG
) -> Page:
    """As `read_batch`, and whether there may be more."""
    return as_page(await connection.fetch(feed.page, after, limit, max_bytes), limit, max_bytes)


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


async def read_head(connection: Connection, feed: Feed = EVENT_LOG) -> Head:
    row = await connection.fetchrow(feed.read_head)
    assert row is not None, f"{feed.head} has exactly one row"
    return Head._make(row)


async def read_lag(connection: Connection, shown: ConsistencyToken | None, feed: Feed = EVENT_LOG) -> Lag:
    """How far a read model that shows the feed up to `shown` is behind the feed's head."""
    row = await connection.fetchrow(
        feed.read_lag, None if shown is None else shown.log_id, 0 if shown is None else shown.position
    )
    assert row is not None, f"{feed.head} has exactly one row"
    return Lag._make(row)
