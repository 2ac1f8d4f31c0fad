"""Who is the active projector: a session-level advisory lock in PostgreSQL, held by the connection that reads the log.

The lease saves work, it does not guard anything: two that believe they hold it cannot harm each other (see
`projector.engine`). It ends with its connection, however that ends.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import asyncpg

from shared import event_store, postgres
from shared.settings import Settings

# The server ends a session that asks nothing for so long, and with it the lease of a process that is paused: its
# kernel would keep the connection alive for ever. An active projector polls far more often than that.
IDLE_SECONDS = 10.0
_ASK_SECONDS = 10.0  # the longest that a lease statement may take before the connection counts as dead

# Asked for again and again rather than waited for: a statement waiting for a lock keeps its snapshot, and with it
# every dead version of the log's head row.
_TRY = "select pg_try_advisory_lock(hashtextextended('projector of ' || $1, 0))"
_NEXT_EPOCH = "select nextval('projector_epochs')"
# By drawing, not by setval(), which the projector's role may not use. Epochs count leases: there are not many to draw.
_RAISE_EPOCH = (
    "select coalesce(max(nextval('projector_epochs')), currval('projector_epochs'))"
    " from generate_series(nextval('projector_epochs'), $1::bigint + 1)"
)


@dataclass(slots=True)
class Lease:
    """The right to be the active projector, while `connection` lives. Higher epochs are later leases."""

    connection: asyncpg.Connection[asyncpg.Record]
    epoch: int

    async def raise_epoch(self, above: int) -> None:
        """Takes a new epoch higher than `above`. The session that holds the lock does it, so it is still the one."""
        self.epoch = await self.connection.fetchval(_RAISE_EPOCH, above, timeout=_ASK_SECONDS)


@asynccontextmanager
async def connect(
    settings: Settings, on_event: Callable[[], None], idle_seconds: float = IDLE_SECONDS
) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """A connection that calls `on_event` when the log may have grown, and when the connection is lost."""
    connection = await postgres.connect(settings, "projector")
    try:
        await connection.execute(f"set idle_session_timeout = {round(idle_seconds * 1_000)}", timeout=_ASK_SECONDS)
        connection.add_termination_listener(lambda *_: on_event())
        await connection.add_listener(event_store.CHANNEL, lambda *_: on_event())
        yield connection
    finally:
        # Not close(): that waits for the server, which may be the one that is gone.
        connection.terminate()


async def try_acquire(connection: asyncpg.Connection[asyncpg.Record], name: str) -> Lease | None:
    """The lease on `name`, or None while another session has it."""
    async with asyncio.timeout(_ASK_SECONDS):
        if not await connection.fetchval(_TRY, name):
            return None
        return Lease(connection, await connection.fetchval(_NEXT_EPOCH))
