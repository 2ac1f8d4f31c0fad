"""Reading the log from the command line: which database, and one read-only snapshot of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg

from cli.stack.addresses import NoDatabase, find_database
from shared.eventstore import log as event_log
from shared.eventstore.log import Head
from shared.postgres import CONNECT_SECONDS, CONNECTION_LOST

Connection = event_log.Connection


class NoHistory(Exception):
    """No database to read, or it does not let us; the message says which, for a person."""


class ReplayFailed(Exception):
    """The replay stopped at an event, or its result cannot be shown; the message says where and why."""


def history_url(given: str | None, data_dir: Path) -> str:
    """The database that was given, else DATABASE_URL, else that of the stack that runs in `data_dir`, as its auditor.
    Raises NoHistory."""
    try:
        return find_database(data_dir, "auditor", given)
    except NoDatabase as error:
        raise NoHistory(str(error)) from error


@asynccontextmanager
async def snapshot(url: str) -> AsyncIterator[tuple[Connection, Head]]:
    """A read-only snapshot of the log, which shows no later event however long it is held. Raises NoHistory."""
    try:
        connection = await asyncpg.connect(
            url, timeout=CONNECT_SECONDS, server_settings={"application_name": "orders-replay", "jit": "off"}
        )
    except (*CONNECTION_LOST, ValueError, asyncpg.PostgresError) as error:
        raise NoHistory(f"cannot connect: {error}") from error
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            yield connection, await event_log.read_head(connection)
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise NoHistory(f"cannot read the log: {error}") from error
    finally:
        await connection.close(timeout=CONNECT_SECONDS)
