"""The interfaces of an event store, and the one in PostgreSQL. The one in memory is `shared/eventstore/memory.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import asyncpg

from shared.eventstore import idempotency_keys, log, snapshot_rows
from shared.eventstore.append_request import AppendRequest, AppendResult
from shared.eventstore.log import Connection, Head, Page, StoredEvent
from shared.eventstore.snapshot_rows import Snapshot


class EventStore(Protocol):
    """Appends, reads and keeps snapshots. The functions of the same names in `log` say what each method does."""

    async def append_group(self, group: Sequence[AppendRequest]) -> list[AppendResult]: ...

    def read_stream(self, stream_id: str, after_version: int = 0) -> AsyncIterator[StoredEvent]: ...

    async def read_stream_page(self, stream_id: str, after_version: int, limit: int) -> list[StoredEvent]: ...

    async def read_version(self, stream_id: str) -> int: ...

    async def existing(self, streams: Sequence[str]) -> set[str]: ...

    def read_all(self, after: int = 0) -> AsyncIterator[StoredEvent]: ...

    async def read_batch(self, after: int, limit: int) -> list[StoredEvent]: ...

    async def read_page(self, after: int, limit: int, max_bytes: int) -> Page: ...

    async def read_head(self) -> Head: ...

    async def load_stream(self, stream_id: str, fingerprint: bytes) -> tuple[Snapshot | None, list[StoredEvent]]: ...

    async def save_snapshot(
        self, stream_id: str, fingerprint: bytes, version: int, position: int, at: datetime, state: str, mac: bytes
    ) -> None: ...

    async def find_key(self, key: str) -> tuple[bytes, AppendResult] | None: ...

    async def purge_keys(self, older_than: timedelta, at_most: int = 10_000) -> int: ...


class AppendSession(Protocol):
    """A session with the log that group commit appends through, and replaces when it is lost."""

    async def append_group(self, group: Sequence[AppendRequest]) -> list[AppendResult]: ...

    def is_closed(self) -> bool: ...

    async def close(self) -> None:
        """Ends the session after its last answer."""

    def terminate(self) -> None:
        """Ends the session at once."""


class PostgresEventStore:
    """The log in PostgreSQL, through a pool or one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def append_group(self, group: Sequence[AppendRequest]) -> list[AppendResult]:
        return await log.append_group(self._connection, group)

    def read_stream(self, stream_id: str, after_version: int = 0) -> AsyncIterator[StoredEvent]:
        return log.read_stream(self._connection, stream_id, after_version)

    async def read_stream_page(self, stream_id: str, after_version: int, limit: int) -> list[StoredEvent]:
        return await log.read_stream_page(self._connection, stream_id, after_version, limit)

    async def read_version(self, stream_id: str) -> int:
        return await log.read_version(self._connection, stream_id)

    async def existing(self, streams: Sequence[str]) -> set[str]:
        return await log.existing(self._connection, streams)

    def read_all(self, after: int = 0) -> AsyncIterator[StoredEvent]:
        return log.read_all(self._connection, after)

    async def read_batch(self, after: int, limit: int) -> list[StoredEvent]:
        return await log.read_batch(self._connection, after, limit)

    async def read_page(self, after: int, limit: int, max_bytes: int) -> Page:
        return await log.read_page(self._connection, after, limit, max_bytes)

    async def read_head(self) -> Head:
        return await log.read_head(self._connection)

    async def load_stream(self, stream_id: str, fingerprint: bytes) -> tuple[Snapshot | None, list[StoredEvent]]:
        return await snapshot_rows.load_stream(self._connection, stream_id, fingerprint)

    async def save_snapshot(
        self, stream_id: str, fingerprint: bytes, version: int, position: int, at: datetime, state: str, mac: bytes
    ) -> None:
        await snapshot_rows.save_snapshot(self._connection, stream_id, fingerprint, version, position, at, state, mac)

    async def find_key(self, key: str) -> tuple[bytes, AppendResult] | None:
        return await idempotency_keys.find_key(self._connection, key)

    async def purge_keys(self, older_than: timedelta, at_most: int = 10_000) -> int:
        return await idempotency_keys.purge_keys(self._connection, older_than, at_most)


class PostgresAppendSession:
    """Appends on a connection of its own."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self._connection = connection

    async def append_group(self, group: Sequence[AppendRequest]) -> list[AppendResult]:
        return await log.append_group(self._connection, group)

    def is_closed(self) -> bool:
        return self._connection.is_closed()

    async def close(self) -> None:
        await self._connection.close(timeout=1.0)

    def terminate(self) -> None:
        self._connection.terminate()
