"""The log's hash chain, computed anew from what is stored. Shares no code with the database function that made it."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from uuid import UUID

from shared.eventstore.log import StoredEvent

_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


def first_hash(log_id: UUID) -> bytes:
    """The hash that the first event follows."""
    return sha256(log_id.bytes).digest()


def hash_of(previous: bytes, event: StoredEvent) -> bytes:
    columns = (
        struct.pack(">q", event.position),
        event.stream_id.encode(),
        struct.pack(">i", event.version),
        event.event_id.bytes,
        event.event_type.encode(),
        struct.pack(">i", event.schema_version),
        event.data.encode(),
        event.metadata.encode(),
        _microseconds(event.occurred_at),
        _microseconds(event.recorded_at),
    )
    return sha256(previous + b"".join(struct.pack(">i", len(value)) + value for value in columns)).digest()


def _microseconds(time: datetime) -> bytes:
    return struct.pack(">q", (time - _POSTGRES_EPOCH) // timedelta(microseconds=1))


def assert_sound(log: Iterable[StoredEvent], previous: bytes, after: int = 0) -> bytes:
    """Positions without a gap, times that never decrease, hashes that follow from each other. Answers the last hash."""
    recorded_at = datetime.min.replace(tzinfo=UTC)
    for position, event in enumerate(log, start=after + 1):
        assert event.position == position
        assert event.recorded_at >= recorded_at
        assert event.hash == hash_of(previous, event), f"the chain breaks at position {position}"
        recorded_at, previous = event.recorded_at, event.hash
    return previous
