"""Snapshots of aggregates: when to save one, in which form, and loading a stream from its latest one.

A snapshot bounds how many events a load reads. It is a cache of the log: one of another shape is not read, one that
cannot be decoded is skipped. Commands are decided on it, so it is authenticated with a key that the database does not
hold: one that the command service did not save is skipped, too.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, NamedTuple

import asyncpg
import msgspec

from shared.aggregates import AGGREGATES, parse_stream
from shared.aggregates.aggregate import Aggregate
from shared.eventstore import codec, snapshot_rows
from shared.eventstore import log as event_log
from shared.eventstore.log import Connection, StoredEvent
from shared.eventstore.snapshot_rows import Snapshot
from shared.eventstore.store import EventStore
from shared.logs import get_logger
from shared.postgres import CONNECTION_LOST
from shared.settings import Settings

_KEEP_OLD_SHAPES = timedelta(days=30)

_log = get_logger()


class LoadedState(NamedTuple):
    """A folded stream. `version` 0: it has no event, as far as is known."""

    state: Any = None  # of the aggregate's state type; None before the first event
    version: int = 0
    position: int = 0
    last_occurred_at: datetime | None = None  # the latest time at which an event of it occurred
    snapshot_version: int = 0
    snapshot_taken_at: datetime | None = None

    def with_snapshot(self, now: datetime) -> LoadedState:
        """The same, with a snapshot of it saved."""
        return self._replace(snapshot_version=self.version, snapshot_taken_at=now)

    def after(self, state: Any, events: int, at: datetime) -> LoadedState:
        """The state after so many more events, which occurred at that time. Their positions are not known yet:
        `position` stays."""
        # Not by `_replace`, which takes three times as long.
        version, latest = self.version + events, _later(self.last_occurred_at, at)
        return LoadedState(state, version, self.position, latest, self.snapshot_version, self.snapshot_taken_at)

    def with_snapshot_of(self, other: LoadedState) -> LoadedState:
        """The same, with the snapshot that another state of its stream knows, where that is a later one."""
        if other.snapshot_version <= self.snapshot_version:
            return self
        return self._replace(snapshot_version=other.snapshot_version, snapshot_taken_at=other.snapshot_taken_at)

    def apply(self, aggregate: Aggregate[Any, Any], stored: StoredEvent) -> LoadedState:
        """The state after the stream's next event. Raises what `codec.decode` raises."""
        event = codec.decode(stored.event_type, stored.schema_version, stored.data)
        return LoadedState(
            aggregate.after(self.state, event, stored.occurred_at),
            stored.version,
            stored.position,
            _later(self.last_occurred_at, stored.occurred_at),
            self.snapshot_version,
            self.snapshot_taken_at,
        )


def _later(latest: datetime | None, at: datetime) -> datetime:
    return at if latest is None or at > latest else latest


@dataclass(frozen=True, slots=True)
class SnapshotPolicy:
    """When the state after a command is saved; 0 turns a rule off."""

    every_events: int = 100
    max_age: timedelta = timedelta(0)
    command_events: int = 0

    @classmethod
    def of(cls, settings: Settings) -> SnapshotPolicy:
        if settings.snapshot_key is None:
            return cls(every_events=0)
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


class _Format(NamedTuple):
    """Of the snapshots of one aggregate."""

    fingerprint: bytes
    decoder: msgspec.json.Decoder[Any]


class Snapshots:
    """The snapshots in an event store. Without a key none is read, and none may be saved."""

    def __init__(self, store: EventStore, key: bytes | None) -> None:
        self._store = store
        self._key = key
        self._formats: dict[tuple[type[Any], int], _Format] = {}  # by state type and revision

    @classmethod
    def of(cls, store: EventStore, settings: Settings) -> Snapshots:
        key = settings.snapshot_key
        return cls(store, None if key is None else key.get_secret_value().encode())

    def fingerprint(self, aggregate: Aggregate[Any, Any]) -> bytes:
        """Of the shape of the aggregate's state, and of the key. Snapshots of another are not read."""
        return self._format_of(aggregate).fingerprint

    async def load(self, aggregate: Aggregate[Any, Any], stream_id: str) -> LoadedState:
        """The stream folded from its latest snapshot; one round trip for a page of events after it.

        Raises what `codec.decode` raises.
        """
        loaded, tail = LoadedState(), None
        if self._key is not None:
            snapshot, tail = await self._store.load_stream(stream_id, self.fingerprint(aggregate))
            if snapshot is not None:
                if (resumed := self._resume(aggregate, stream_id, snapshot)) is not None:
                    loaded = resumed
                else:
                    tail = None  # read from the start below
        for stored in tail or ():
            loaded = loaded.apply(aggregate, stored)
        if tail is None or not event_log.is_last_page(tail, event_log.PAGE):
            async for stored in self._store.read_stream(stream_id, loaded.version):
                loaded = loaded.apply(aggregate, stored)
        return loaded

    async def save(self, aggregate: Aggregate[Any, Any], stream_id: str, loaded: LoadedState) -> None:
        """Saves the state, unless a later one is saved already."""
        assert loaded.last_occurred_at is not None, "a stream without events has no snapshot"
        state = msgspec.json.encode(loaded.state).decode()
        row = (stream_id, self.fingerprint(aggregate), loaded.version, loaded.position, loaded.last_occurred_at, state)
        await self._store.save_snapshot(*row, self._mac(*row))

    def _resume(self, aggregate: Aggregate[Any, Any], stream_id: str, snapshot: Snapshot) -> LoadedState | None:
        fingerprint, decoder = self._format_of(aggregate)
        version, position, occurred_at, taken_at, encoded, mac = snapshot
        if not hmac.compare_digest(mac, self._mac(stream_id, fingerprint, version, position, occurred_at, encoded)):
            _log.error("snapshot refused", stream_id=stream_id, version=version)
            return None
        try:
            state = decoder.decode(encoded)
        except msgspec.DecodeError as error:
            _log.error("snapshot skipped", stream_id=stream_id, version=version, error=str(error))
            return None
        return LoadedState(state, version, position, occurred_at, version, taken_at)

    def _mac(self, *row: object) -> bytes:
        """Over a snapshot's columns, in MessagePack, which encodes no two rows alike."""
        assert self._key is not None, "without a key, no snapshot is read or saved"
        return hmac.digest(self._key, msgspec.msgpack.encode(row), "sha256")

    def _format_of(self, aggregate: Aggregate[Any, Any]) -> _Format:
        of_state = aggregate.state, aggregate.snapshot_revision
        if (known := self._formats.get(of_state)) is None:
            schema = msgspec.json.encode(msgspec.json.schema(aggregate.state), order="deterministic")
            fingerprint = self._mac(aggregate.snapshot_revision, schema)
            known = self._formats[of_state] = _Format(fingerprint, msgspec.json.Decoder(aggregate.state))
        return known


async def compact(
    connection: Connection,
    snapshots: Snapshots,
    every_events: int,
    *,
    from_start: bool = False,
    slice_events: int = 50_000,
) -> int:
    """Saves a snapshot of every stream that grew by `every_events` since its last one; returns how many.

    Walks the log from where the last compaction ended, a slice at a time. A stream that this program cannot read is
    logged and skipped.
    """
    head = (await event_log.read_head(connection)).position
    after = 0 if from_start else await snapshot_rows.compacted_position(connection)
    saved = 0
    while after < head:
        up_to = min(after + slice_events, head)
        for stream_id in await snapshot_rows.streams_due_for_snapshot(connection, after, up_to, every_events):
            saved += await _compact_stream(snapshots, stream_id, every_events)
        after = up_to
        await snapshot_rows.finish_compaction(connection, after)
    for category, aggregate in AGGREGATES.items():
        await snapshot_rows.delete_stale_snapshots(
            connection, category, snapshots.fingerprint(aggregate), _KEEP_OLD_SHAPES
        )
    return saved


async def _compact_stream(snapshots: Snapshots, stream_id: str, every_events: int) -> bool:
    """Whether a snapshot was due."""
    if (parsed := parse_stream(stream_id)) is None:
        return False
    aggregate, _ = parsed
    try:
        loaded = await snapshots.load(aggregate, stream_id)
    except (*CONNECTION_LOST, asyncpg.PostgresError):
        raise
    except Exception as error:  # noqa: BLE001 - whatever is wrong with one stream, the others are compacted
        _log.error("stream not compacted", stream_id=stream_id, error=repr(error))
        return False
    if loaded.version - loaded.snapshot_version < every_events:
        return False
    await snapshots.save(aggregate, stream_id, loaded)
    return True
