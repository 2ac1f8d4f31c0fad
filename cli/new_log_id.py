"""`orders log new-id`: another identity for a log that was restored."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import NamedTuple
from uuid import UUID

import asyncpg

from cli.stack.addresses import NoDatabase, find_database
from shared.postgres import CONNECT_SECONDS, CONNECTION_LOST

LONGEST_REASON = 500
# Long enough for appends that are on their way; whoever holds the head longer is to be looked at first.
ANSWER_SECONDS = 10.0


class GivenId(NamedTuple):
    old_id: UUID
    new_id: UUID
    position: int


class NotGiven(Exception):
    """The log keeps its id; the message says why."""


def give_new_id(data_dir: Path, reason: str) -> GivenId:
    """In DATABASE_URL, else in the stack that runs in `data_dir`. Raises NotGiven."""
    if not 0 < len(reason) <= LONGEST_REASON or not reason.isprintable():
        raise NotGiven(f"the reason must be one line of 1 to {LONGEST_REASON} characters")
    try:
        return asyncio.run(_give(find_database(data_dir), reason))
    except (*CONNECTION_LOST, asyncpg.PostgresError, ValueError, NoDatabase) as error:
        raise NotGiven(str(error) or repr(error)) from error


async def _give(url: str, reason: str) -> GivenId:
    connection = await asyncpg.connect(url, timeout=CONNECT_SECONDS, server_settings={"application_name": "orders-log"})
    try:
        row = await connection.fetchrow("select * from give_new_log_id($1)", reason, timeout=ANSWER_SECONDS)
        assert row is not None, "the function answers with one row"
        return GivenId._make(row)
    finally:
        await connection.close(timeout=CONNECT_SECONDS)
