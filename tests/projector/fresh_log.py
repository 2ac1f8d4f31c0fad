"""The real log, emptied for each of the histories that a test tries: a database for each would take far longer."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import asyncpg

from shared.eventstore import log as event_log
from shared.eventstore.append_request import AppendRequest, AppendStatus, NewEvent
from shared.eventstore.log import StoredEvent

_EMPTY = """
alter table events disable trigger user;
delete from events;
alter table events enable always trigger events_are_immutable;
alter table events enable always trigger events_are_not_truncated;
update log_head set (log_id, position, hash, recorded_at) = (
    select id, 0, sha256(uuid_send(id)), '-infinity'::timestamptz from gen_random_uuid() id
)
"""
NOTIFY_SECONDS = 10.0


class FreshLog:
    """Needs a superuser's connection. `events` are what the log holds, as it answers."""

    def __init__(self, connection: asyncpg.Connection[asyncpg.Record]) -> None:
        self.events: list[StoredEvent] = []
        self.notified = asyncio.Event()  # to be set by a session that receives a notification
        self._connection = connection

    async def begin(self) -> None:
        """Empties the log and gives it another id."""
        await self._connection.execute(_EMPTY)
        self.events = []

    async def append(self, event: StoredEvent) -> None:
        """Appends the next event, under a hash and a time of the log's own. Returns once a session was notified."""
        self.notified.clear()
        append = AppendRequest.of_stream(event.stream_id, event.version - 1, uuid4(), [NewEvent(*event[3:9])])
        (result,) = await event_log.append_group(self._connection, [append])
        assert (result.status, result.position) == (AppendStatus.APPENDED, event.position)
        self.events += await event_log.read_batch(self._connection, len(self.events), 1)
        async with asyncio.timeout(NOTIFY_SECONDS):
            await self.notified.wait()
