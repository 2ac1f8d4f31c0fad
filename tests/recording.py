"""Writes events into the log directly, for tests of its readers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, TypeAlias

import asyncpg
from uuid_utils.compat import uuid7

from shared.aggregates import parse_stream
from shared.aggregates.order import ORDER, OrderEvent
from shared.eventstore import codec
from shared.eventstore import log as event_log
from shared.eventstore.append_request import AppendRequest, AppendResult, AppendStatus, NewEvent

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def put_in_log(
    connection: Connection, stream_id: str, *events: Any, after: int = 0, at: datetime | None = None
) -> AppendResult:
    """Appends events after a version of the stream, as another writer would."""
    at = at or datetime.now(UTC)
    parsed = parse_stream(stream_id)
    owner = None if parsed is None else parsed[0].owner_of(events[0])  # None where it is not the first event
    new = [NewEvent(uuid7(), *codec.encode(event), "{}", at) for event in events]
    return await _append(connection, stream_id, after, new, owner)


async def put_raw_in_log(
    connection: Connection, stream_id: str, event_type: str, schema_version: int, data: str, after: int = 0
) -> AppendResult:
    """Appends what today's program would not write."""
    event = NewEvent(uuid7(), event_type, schema_version, data, "{}", datetime.now(UTC))
    return await _append(connection, stream_id, after, [event])


async def _append(
    connection: Connection, stream_id: str, after: int, events: list[NewEvent], owner: str | None = None
) -> AppendResult:
    request = AppendRequest.of_stream(stream_id, after, uuid7(), events, owner=owner)
    [result] = await event_log.append_group(connection, [request])
    assert result.status is AppendStatus.APPENDED
    return result


class Recorder:
    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._versions: Counter[str] = Counter()

    async def record(self, order_id: str, *events: OrderEvent, occurred_at: datetime | None = None) -> int:
        """Appends events to an order's stream; the position of the last one."""
        stream_id = ORDER.stream_of(order_id)
        after = self._versions[stream_id]
        return self._recorded(
            stream_id, await put_in_log(self.connection, stream_id, *events, after=after, at=occurred_at)
        )

    async def record_each(self, order_ids: Sequence[str], event: OrderEvent, occurred_at: datetime) -> None:
        """Appends the same first event to many new streams at once."""
        encoded, owner = codec.encode(event), ORDER.owner_of(event)
        streams = [ORDER.stream_of(order_id) for order_id in order_ids]
        group = [
            AppendRequest.of_stream(
                stream_id, 0, uuid7(), [NewEvent(uuid7(), *encoded, "{}", occurred_at)], owner=owner
            )
            for stream_id in streams
        ]
        results = await event_log.append_group(self.connection, group)
        assert {result.status for result in results} == {AppendStatus.APPENDED}
        self._versions.update(streams)

    async def record_raw(self, order_id: str, event_type: str, schema_version: int, data: str) -> int:
        """Appends what today's program would not write."""
        stream_id = ORDER.stream_of(order_id)
        after = self._versions[stream_id]
        return self._recorded(
            stream_id, await put_raw_in_log(self.connection, stream_id, event_type, schema_version, data, after)
        )

    def _recorded(self, stream_id: str, result: AppendResult) -> int:
        self._versions[stream_id] = result.version
        return result.position


async def lose_every_notification(connection: Connection) -> None:
    """From now on this database's log sends no notifications."""
    # Replacing pg_notify itself would change nothing: what is built in is called by its number.
    definition = await connection.fetchval("select pg_get_functiondef('append_group'::regproc)")
    silent = definition.replace("perform pg_notify('events', last::text);", "")
    assert silent != definition
    await connection.execute(silent)


async def make_older(connection: Connection, seconds: float) -> None:
    """As if all that is in the log had been recorded so much earlier. Needs a superuser, and breaks the hashes."""
    async with connection.transaction():
        await connection.execute("alter table events disable trigger events_are_immutable")
        await connection.execute("update events set recorded_at = recorded_at - make_interval(secs => $1)", seconds)
        await connection.execute("alter table events enable always trigger events_are_immutable")
