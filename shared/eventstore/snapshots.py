"""Snapshots of aggregates: when to save one, in which form, and loading a stream from its latest one.

A snapshot bounds how many events a load reads. It is a cache of the log: one of another shape is not read, one that
cannot be decoded is skipped.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import sha256
from typing import Any, NamedTuple

import asyncpg
import msgspec

from shared.aggregates import AGGREGATES, parse_stream
from shared.aggregates.aggregate import Aggregate
from shared.eventstore import codec
from shared.eventstore import log as event_log
from shared.eventstore.log import Connection, Snapshot, StoredEvent
from shared.eventstore.store import EventStore, PostgresEventStore
from shared.logs import get_logger
from shared.postgres import CONNECTION_LOST
from shared.settings import Settings

_KEEP_OLD_SHAPES = timedelta(days=30)

_log = get_logger()
_formats: dict[tuple[type[Any], int], _Format] = {}  # by state type and revision


class LoadedState(NamedTuple):
    """A folded stream. `version` 0: it has no event, as far as is known."""

    state: Any = None  # of the aggregate's state type; None before the first event
    version: int = 0
    position: int = 0
    last_occurred_at: datetime | None = None
    snapshot_version: int = 0
    snapshot_taken_at: datetime | None = None

    def with_snapshot(self, now: datetime) -> LoadedState:
        """The same, with a snapshot of it saved."""
        return self._replace(snapshot_version=self.version, snapshot_taken_at=now)

    def after(self, state: Any, events: int, at: datetime) -> LoadedState:
        """The state after so many more events, the last of which happened at that time. Their positions are not known
        yet: `position` stays."""
        # Not by `_replace`, which takes three times as long.
        version = self.version + events
        return LoadedState(state, version, self.position, at, self.snapshot_version, self.snapshot_taken_at)

    def with_snapshot_of(self, other: LoadedState) -> LoadedState:
        """The same, with the snapshot that another state of its stream knows, where that is a later one."""
        if other.snapshot_version <= self.snapshot_version:
            return self
        return self._replace(snapshot_version=other.snapshot_version, snapshot_taken_at=other.snapshot_taken_at)

    def apply(self, aggregate: Aggregate[Any, Any], stored: StoredEvent) -> LoadedState:
        """The state after the stream's next event. Raises what `codec.decode` raises."""
        event = codec.decode(stored.event_type, stored.schema_version, stored.data)
        return LoadedState(
            aggregate.evolve(self.state, event),
            stored.version,
            stored.position,
            stored.occurred_at,
            self.snapshot_version,
            self.snapshot_taken_at,
        )


class _Format(NamedTuple):
    """Of the snapshots of one aggregate."""

    fingerprint: bytes
    decoder: msgspec.json.Decoder[Any]


def _format_of(aggregate: Aggregate[Any, Any]) -> _Format:
    key = (aggregate.state, aggregate.snapshot_revision)
    if (known := _formats.get(key)) is None:
        known = _formats[key] = _make_format(*key)
    return known


def _make_format(state: type[Any], revision: int) -> _Format:
    schema = msgspec.json.encode(msgspec.json.schema(state), order="deterministic")
    return _Format(sha256(revision.to_bytes(4) + schema).digest(), msgspec.json.Decoder(state))


def fingerprint(aggregate: Aggregate[Any, Any]) -> bytes:
    """Of the shape of the aggregate's state. Snapshots of another shape are not read."""
    return _format_of(aggregate).fingerprint


@dataclass(frozen=True, slots=True)
class SnapshotPolicy:
    """When the state after a command is saved; 0 turns a rule off."""

    every_events: int = 100
    max_age: timedelta = timedelta(0)
    command_events: int = 0

    @classmethod
    def of(cls, settings: Settings) -> SnapshotPolicy:
        return cls(
            settings.snapshot_every_events,
            timedelta(seconds=settings.snapshot_max_age_seconds),
            settings.snapshot_command_events,
        )

    def is_due(self, loaded: LoadedState, appended: int, now: datetime) -> bool:
        """Whether to save `loaded`, the state after a command that appended so many events."""
        grown = loaded.version - loaded.snapshot_version
        if grown == 0:
            return False
        if self.every_events and grown >= self.every_events:
            return True
        if self.command_events and appended >= self.command_events:
            return True
        taken = loaded.snapshot_taken_at
        return bool(self.max_age) and taken is not None and now - taken >= self.max_age


async def load(store: EventStore, aggregate: Aggregate[Any, Any], stream_id: str) -> LoadedState:
    """The stream folded from its latest snapshot; one round trip for a page of events after it.

    Raises what `codec.decode` raises.
    """
    snapshot, tail = await store.load_stream(stream_id, fingerprint(aggregate))
    loaded = LoadedState()
    if snapshot is not None:
        resumed = _resume(aggregate, stream_id, snapshot)
        if resumed is None:
            tail = []  # read from the start below
        else:
            loaded = resumed
    for stored in tail:
        loaded = loaded.apply(aggregate, stored)
    if not event_log.is_last_page(tail, event_log.PAGE) or (snapshot is not None and loaded.version == 0):
        async for stored in store.read_stream(stream_id, loaded.version):
            loaded = loaded.apply(aggregate, stored)
    return loaded


def _resume(aggregate: Aggregate[Any, Any], stream_id: str, snapshot: Snapshot) -> LoadedState | None:
    try:
        state = _format_of(aggregate).decoder.decode(snapshot.state)
    except msgspec.DecodeError as error:
        _log.error("snapshot skipped", stream_id=stream_id, version=snapshot.version, error=str(error))
        return None
    version, position, occurred_at, taken_at, _ = snapshot
    return LoadedState(state, version, position, occurred_at, version, taken_at)


async def save(store: EventStore, aggregate: Aggregate[Any, Any], stream_id: str, loaded: LoadedState) -> None:
    """Saves the state, unless a later one is saved already."""
    assert loaded.last_occurred_at is not None, "a stream without events has no snapshot"
    state = msgspec.json.encode(loaded.state).decode()
    await store.save_snapshot(
        stream_id, fingerprint(aggregate), loaded.version, loaded.position, loaded.last_occurred_at, state
    )


async def compact(
    connection: Connection, every_events: int, *, from_start: bool = False, slice_events: int = 50_000
) -> int:
    """Saves a snapshot of every stream that grew by `every_events` since its last one; returns how many.

    Walks the log from where the last compaction ended, a slice at a time. A stream that this program cannot read is
    logged and skipped.
    """
    head = (await event_log.read_head(connection)).position
    after = 0 if from_start else await event_log.compacted_position(connection)
    saved = 0
    while after < head:
        up_to = min(after + slice_events, head)
        for stream_id in await event_log.streams_due_for_snapshot(connection, after, up_to, every_events):
            saved += await _compact_stream(connection, stream_id, every_events)
        after = up_to
        await event_log.finish_compaction(connection, after)
    for category, aggregate in AGGREGATES.items():
        await event_log.delete_stale_snapshots(connection, category, fingerprint(aggregate), _KEEP_OLD_SHAPES)
    return saved


async def _compact_stream(connection: Connection, stream_id: str, every_events: int) -> bool:
    """Whether a snapshot was due."""
    if (parsed := parse_stream(stream_id)) is None:
        return False
    aggregate, _ = parsed
    store = PostgresEventStore(connection)
    try:
        loaded = await load(store, aggregate, stream_id)
    except (*CONNECTION_LOST, asyncpg.PostgresError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one stream, the others are compacted
        _log.error("stream not compacted", stream_id=stream_id, error=repr(error))
        return False
    if loaded.version - loaded.snapshot_version < every_events:
        return False
    await save(store, aggregate, stream_id, loaded)
    return True
