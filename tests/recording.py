"""Writes events into the log directly, for tests of whoever reads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import uuid4

import asyncpg

from shared.aggregates.order import OrderEvent, stream_of
from shared.eventstore import codec
from shared.eventstore import log as event_log
from shared.eventstore.log import AppendRequest, AppendStatus, NewEvent


class Recorder:
    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self.connection = connection
        self._versions: Counter[str] = Counter()

    async def record(self, order_id: str, *events: OrderEvent, occurred_at: datetime | None = None) -> int:
        """Appends events to an order's stream; the position of the last one."""
        at = occurred_at or datetime.now(UTC)
        return await self._append(order_id, [NewEvent(uuid4(), *codec.encode(event), "{}", at) for event in events])

    async def record_each(self, order_ids: Sequence[str], event: OrderEvent, occurred_at: datetime) -> None:
        """Appends the same first event to many new streams at once."""
        encoded = codec.encode(event)
        streams = [stream_of(order_id) for order_id in order_ids]
        group = [
            AppendRequest.of_stream(stream_id, 0, uuid4(), [NewEvent(uuid4(), *encoded, "{}", occurred_at)])
            for stream_id in streams
        ]
        verdicts = await event_log.append_group(self.connection, group)
        assert {verdict.status for verdict in verdicts} == {AppendStatus.APPENDED}
        self._versions.update(streams)

    async def record_raw(self, order_id: str, event_type: str, schema_version: int, data: str) -> int:
        """Appends what today's program would not write."""
        event = NewEvent(uuid4(), event_type, schema_version, data, "{}", datetime.now(UTC))
        return await self._append(order_id, [event])

    async def _append(self, order_id: str, events: list[NewEvent]) -> int:
        stream_id = stream_of(order_id)
        append = AppendRequest.of_stream(stream_id, self._versions[stream_id], uuid4(), events)
        (verdict,) = await event_log.append_group(self.connection, [append])
        assert verdict.status is AppendStatus.APPENDED
        self._versions[stream_id] = verdict.version
        return verdict.position


async def lose_every_notification(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """From now on this database's log notifies nobody."""
    # Replacing pg_notify itself would change nothing: what is built in is called by its number.
    definition = await connection.fetchval("select pg_get_functiondef('append_group'::regproc)")
    silent = definition.replace("perform pg_notify('events', last::text);", "")
    assert silent != definition
    await connection.execute(silent)


async def make_older(connection: asyncpg.Connection[asyncpg.Record], seconds: float) -> None:
    """As if all that is in the log had been recorded so much earlier. Needs a superuser, and breaks the hashes."""
    async with connection.transaction():
        await connection.execute("alter table events disable trigger events_are_immutable")
        await connection.execute("update events set recorded_at = recorded_at - make_interval(secs => $1)", seconds)
        await connection.execute("alter table events enable always trigger events_are_immutable")
