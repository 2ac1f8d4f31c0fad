"""An event store in memory, for tests and simulations that need no server. Its contents end with the process."""

from __future__ import annotations

import struct
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID, uuid4

from shared.eventstore import idempotency_keys, log
from shared.eventstore.append_request import AppendRequest, AppendResult, AppendStatus, NewEvent
from shared.eventstore.log import Head, Page, StoredEvent
from shared.eventstore.snapshot_rows import Snapshot

_POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)


class _Key(NamedTuple):
    fingerprint: bytes
    first: AppendResult
    recorded_at: datetime


class InMemoryEventStore:
    """Behaves as the log in PostgreSQL does: `EventStore` and `AppendSession` in one."""

    def __init__(self, log_id: UUID | None = None, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self.log_id = log_id or uuid4()
        self._now = now
        self._last_hash = sha256(self.log_id.bytes).digest()
        self._events: list[StoredEvent] = []
        self._streams: dict[str, list[StoredEvent]] = {}
        self._keys: dict[str, _Key] = {}
        self._snapshots: dict[tuple[str, bytes], Snapshot] = {}

    async def append_group(self, group: Sequence[AppendRequest]) -> list[AppendResult]:
        """As `log.append_group`. Raises `ValueError` where a key comes twice."""
        keys = [request.idempotency_key for request in group if request.idempotency_key is not None]
        if len(set(keys)) < len(keys):
            raise ValueError("a group holds each Idempotency-Key once")
        at = max([self._now(), *(event.recorded_at for event in self._events[-1:])])
        discarded: set[str] = set()  # streams that a request of the group failed to append to
        results = []
        for request in group:
            result = self._append(request, at, discarded)
            if result.status is not AppendStatus.APPENDED:
                discarded.update(stream.stream_id for stream in request.streams if stream.events)
            results.append(result)
        return results

    def _append(self, request: AppendRequest, at: datetime, discarded: set[str]) -> AppendResult:
        streams, command_id, key, fingerprint, log_id = request
        if key is not None and (seen := self._keys.get(key)) is not None:
            same = seen.fingerprint == fingerprint
            status = AppendStatus.REPLAYED if same else AppendStatus.KEY_REUSED
            return seen.first._replace(status=status, log_id=self.log_id)
        as_expected = all(
            self._version(name) == expected and name not in discarded for name, expected, *_ in streams
        ) and log_id in (None, self.log_id)
        before = len(self._events)
        for stream_id, _, events, owner in streams if as_expected else ():
            for event in events:
                self._store(stream_id, event, owner, at)
        own = self._streams.get(streams[0].stream_id, [])
        position = len(self._events) if len(self._events) > before else own[-1].position if own else 0
        status = AppendStatus.APPENDED if as_expected else AppendStatus.CONFLICT
        result = AppendResult(status, command_id, streams[0].stream_id, len(own), position, self.log_id)
        if as_expected and key is not None:
            assert fingerprint is not None, "a key comes with a fingerprint"
            self._keys[key] = _Key(fingerprint, result, at)
        return result

    def _version(self, stream_id: str) -> int:
        return len(self._streams.get(stream_id, ()))

    def _store(self, stream_id: str, event: NewEvent, owner: str | None, at: datetime) -> None:
        position, version = len(self._events) + 1, self._version(stream_id) + 1
        if before := self._streams.get(stream_id):
            owner = before[0].owner
        self._last_hash = _hash(self._last_hash, position, stream_id, version, event, at)
        stored = StoredEvent(position, stream_id, version, *event, at, self._last_hash, owner)
        self._events.append(stored)
        self._streams.setdefault(stream_id, []).append(stored)

    async def read_stream(self, stream_id: str, after_version: int = 0) -> AsyncIterator[StoredEvent]:
        for event in self._streams.get(stream_id, [])[after_version:]:
            yield event

    async def read_stream_page(self, stream_id: str, after_version: int, limit: int) -> list[StoredEvent]:
        return self._streams.get(stream_id, [])[after_version : after_version + limit]

    async def read_version(self, stream_id: str) -> int:
        return self._version(stream_id)

    async def existing(self, streams: Sequence[str]) -> set[str]:
        return self._streams.keys() & streams

    async def read_all(self, after: int = 0) -> AsyncIterator[StoredEvent]:
        for event in self._events[after:]:
            yield event

    async def read_batch(self, after: int, limit: int) -> list[StoredEvent]:
        return self._events[after : after + limit]

    async def read_page(self, after: int, limit: int, max_bytes: int) -> Page:
        events: list[StoredEvent] = []
        size = 0
        for event in self._events[after : after + limit]:
            if size >= max_bytes:
                return Page(events, more=True)
            events.append(event)
            size += len(event.data.encode()) + len(event.metadata.encode())
        return Page(events, len(events) == limit)

    async def read_head(self) -> Head:
        return Head(self.log_id, len(self._events), self._events[-1].recorded_at if self._events else None)

    async def load_stream(self, stream_id: str, fingerprint: bytes) -> tuple[Snapshot | None, list[StoredEvent]]:
        snapshot = self._snapshots.get((stream_id, fingerprint))
        after_version = snapshot.version if snapshot else 0
        return snapshot, await self.read_stream_page(stream_id, after_version, log.PAGE)

    async def save_snapshot(
        self, stream_id: str, fingerprint: bytes, version: int, position: int, at: datetime, state: str, mac: bytes
    ) -> None:
        saved = self._snapshots.get((stream_id, fingerprint))
        of_version = await self.read_stream_page(stream_id, version - 1, 1)
        if of_version and of_version[0].position == position and (saved is None or saved.version < version):
            self._snapshots[stream_id, fingerprint] = Snapshot(version, position, at, self._now(), state, mac)

    async def find_key(self, key: str) -> tuple[bytes, AppendResult] | None:
        if (seen := self._keys.get(key)) is None:
            return None
        return seen.fingerprint, seen.first._replace(status=AppendStatus.REPLAYED, log_id=self.log_id)

    async def purge_keys(self, older_than: timedelta, at_most: int = 10_000) -> int:
        before = self._now() - max(older_than, idempotency_keys.YOUNGEST_PURGED)
        old = sorted((seen.recorded_at, key) for key, seen in self._keys.items() if seen.recorded_at < before)
        for _, key in old[:at_most]:
            del self._keys[key]
        return len(old[:at_most])

    async def open_session(self) -> InMemoryEventStore:
        """The session for group commit: the store itself."""
        return self

    def is_closed(self) -> bool:
        return False

    async def close(self) -> None:
        """Does nothing; the store stays."""

    def terminate(self) -> None:
        """Does nothing; the store stays."""


def _hash(previous: bytes, position: int, stream_id: str, version: int, event: NewEvent, at: datetime) -> bytes:
    """As the function `event_hash` of the database computes it."""
    columns = (
        struct.pack(">q", position),
        stream_id.encode(),
        struct.pack(">i", version),
        event.event_id.bytes,
        event.event_type.encode(),
        struct.pack(">i", event.schema_version),
        event.data.encode(),
        event.metadata.encode(),
        _microseconds(event.occurred_at),
        _microseconds(at),
    )
    return sha256(previous + b"".join(struct.pack(">i", len(column)) + column for column in columns)).digest()


def _microseconds(time: datetime) -> bytes:
    return struct.pack(">q", (time - _POSTGRES_EPOCH) // timedelta(microseconds=1))
