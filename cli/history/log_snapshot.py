"""Connections that read the log, one of them in a snapshot."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager

import asyncpg

from cli.failure import CommandFailed
from shared.eventstore import log as event_log
from shared.eventstore.log import Connection, Head
from shared.postgres import CONNECT_SECONDS, CONNECTION_LOST


class NoHistory(CommandFailed):
    """The database does not answer, or refuses to be read."""


class ReplayFailed(CommandFailed):
    """The replay stopped at an event, or its result cannot be shown; the message says where and why."""


@contextmanager
def reading() -> Iterator[None]:
    """Raises NoHistory for what the database raises in it."""
    try:
        yield
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
        raise NoHistory(f"cannot read the log: {error}") from error


@asynccontextmanager
async def log_connection(url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    """Raises NoHistory."""
    try:
        connection = await asyncpg.connect(
            url, timeout=CONNECT_SECONDS, server_settings={"application_name": "orders-replay"}
        )
    except (*CONNECTION_LOST, ValueError, asyncpg.PostgresError) as error:
        raise NoHistory(f"cannot connect: {error}") from error
    try:
        yield connection
    finally:
        await connection.close(timeout=CONNECT_SECONDS)


@asynccontextmanager
async def log_snapshot(url: str) -> AsyncIterator[tuple[Connection, Head]]:
    """A connection in a read-only snapshot, which shows no later event, and the head there. Raises NoHistory."""
    async with log_connection(url) as connection:
        with reading():
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                yield connection, await event_log.read_head(connection)
