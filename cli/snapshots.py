"""`orders snapshots compact`: keep the folded state of every order that grew."""

from __future__ import annotations

import asyncio

import asyncpg

from shared.eventstore.snapshots import compact
from shared.postgres import CONNECTION_LOST


class CompactionFailed(Exception):
    """The database cannot be reached, or refuses; the message says which."""


def compact_snapshots(database_url: str, every: int, *, from_start: bool) -> int:
    """How many snapshots were kept. Raises CompactionFailed."""

    async def run() -> int:
        connection = await asyncpg.connect(database_url)
        try:
            return await compact(connection, every, from_start=from_start)
        finally:
            await connection.close()

    try:
        return asyncio.run(run())
    except (*CONNECTION_LOST, asyncpg.PostgresError, ValueError) as error:
        raise CompactionFailed(str(error)) from error
