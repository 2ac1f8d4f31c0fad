"""Snapshots: when to keep a folded order, in which form, and loading one.

A snapshot bounds how many events a load reads. It is never trusted more than the log: one of another shape is not
read, one that cannot be decoded is passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cache
from hashlib import sha256
from typing import NamedTuple

import msgspec

from shared.aggregates.order import Order, State, evolve
from shared.eventstore import codec
from shared.eventstore import log as event_log
from shared.eventstore.log import Connection, Snapshot, StoredEvent
from shared.logs import get_logger
from shared.settings import Settings

# Raise it when `evolve` comes to mean something else while the fields of the state stay as they are.
REVISION = 1

_log = get_logger()
_decoder = msgspec.json.Decoder(Order)


class LoadedState(NamedTuple):
    """A folded stream. `version` 0: it does not exist, as far as we know."""

    state: State = None
    version: int = 0
    position: int = 0
    last_occurred_at: datetime | None = None
    snapshot_version: int = 0
    snapshot_taken_at: datetime | None = None

    def with_snapshot(self, now: datetime) -> LoadedState:
        """The same, with a snapshot of it."""
        return self._replace(snapshot_version=self.version, snapshot_taken_at=now)

    def apply(self, stored: StoredEvent) -> LoadedState:
        event = codec.decode(stored.event_type, stored.schema_version, stored.data)
        return LoadedState(
            evolve(self.state, event),
            stored.version,
            stored.position,
            stored.occurred_at,
            self.snapshot_version,
            self.snapshot_taken_at,
        )


@cache
def fingerprint() -> bytes:
    """Of the shape of the state: another shape, another fingerprint, and old snapshots are not read."""
    schema = msgspec.json.encode(msgspec.json.schema(Order), order="deterministic")
    return sha256(REVISION.to_bytes(4) + schema).digest()


@dataclass(frozen=True, slots=True)
class SnapshotPolicy:
    """When the state after a command is kept; 0 turns a rule off."""

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
        """Whether to keep `loaded`, the state after a command that appended so many events."""
        grown = loaded.version - loaded.snapshot_version
        if grown == 0:
            return False
        if self.every_events and grown >= self.every_events:
            return True
        if self.command_events and appended >= self.command_events:
            return True
        taken = loaded.snapshot_taken_at
        return bool(self.max_age) and taken is not None and now - taken >= self.max_age


async def load(connection: Connection, stream_id: str) -> LoadedState:
    """The stream folded from its latest snapshot; one round trip for up to `event_log.PAGE` events after it.

    Raises what `codec.decode` raises.
    """
    snapshot, tail = await event_log.load_stream(connection, stream_id, fingerprint())
    loaded = LoadedState()
    if snapshot is not None:
        resumed = _resume(stream_id, snapshot)
        if resumed is None:
            tail = []  # read from the start below
        else:
            loaded = resumed
    for stored in tail:
        loaded = loaded.apply(stored)
    if len(tail) >= event_log.PAGE or (snapshot is not None and loaded.version == 0):
        async for stored in event_log.read_stream(connection, stream_id, loaded.version):
            loaded = loaded.apply(stored)
    return loaded


def _resume(stream_id: str, snapshot: Snapshot) -> LoadedState | None:
    try:
        state = _decoder.decode(snapshot.state)
    except msgspec.DecodeError as error:
        _log.error("snapshot passed over", stream_id=stream_id, version=snapshot.version, error=str(error))
        return None
    version, position, occurred_at, taken_at, _ = snapshot
    return LoadedState(state, version, position, occurred_at, version, taken_at)


async def save(connection: Connection, stream_id: str, loaded: LoadedState) -> None:
    """Keeps the state, unless a later one is kept already."""
    assert loaded.last_occurred_at is not None, "only a stream with events is worth keeping"
    state = msgspec.json.encode(loaded.state).decode()
    await event_log.save_snapshot(
        connection, stream_id, fingerprint(), loaded.version, loaded.position, loaded.last_occurred_at, state
    )


async def compact(
    connection: Connection, every_events: int, *, from_start: bool = False, slice_events: int = 50_000
) -> int:
    """Keeps the state of every stream that grew by `every_events` since it was last kept; returns how many.

    Walks the log from where the last compaction ended, a slice at a time.
    """
    head = (await event_log.read_head(connection)).position
    after = 0 if from_start else await event_log.compacted_position(connection)
    kept = 0
    while after < head:
        up_to = min(after + slice_events, head)
        for stream_id in await event_log.streams_due_for_snapshot(connection, after, up_to, every_events):
            loaded = await load(connection, stream_id)
            if loaded.version - loaded.snapshot_version >= every_events:
                await save(connection, stream_id, loaded)
                kept += 1
        after = up_to
        await event_log.finish_compaction(connection, after)
        await event_log.delete_stale_snapshots(connection, "order", fingerprint(), timedelta(days=30))
    return kept
