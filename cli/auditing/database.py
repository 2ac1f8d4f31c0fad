"""Reads the log from PostgreSQL, read-only, in the order of positions.

Every statement has a snapshot of its own. One snapshot for the whole verification would keep every version of log_head
alive, and each append reads through all of them. It would prove no more: an event at or before the head never changes,
and one statement reads both the head and the last position.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import NamedTuple, TypeAlias

import asyncpg

from cli.auditing.errors import CannotAudit
from cli.auditing.finding import HeadRow, LogIdChange
from cli.auditing.rows import COLUMNS, Row, RowDecoder

STRIDE = 100_000  # positions read with one statement
CONNECT_SECONDS = 10.0

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

# The binary form: 64-bit microseconds, as in the rows, infinity included.
_LOG_HEAD = """
    select array(select row(log_id, position, hash, timestamptz_send(recorded_at)) from public.log_head
                 where log_head is not null),
           (select max(position) from public.events),
           array(select row(log_id, replaces, position, timestamptz_send(given_at), reason) from public.log_ids
                 where log_ids is not null order by number)
"""
_NEXT = "select min(position) from public.events where position > $1"
_HASHES = "select position, hash from public.events where position = any($1)"
_ROWS = f"select {', '.join(COLUMNS)} from public.events where position {{}} and position <= {{}} order by position"  # noqa: S608 - constants only


class LogHead(NamedTuple):
    """The end of the log at one instant: the rows of log_head (one, unless tampered with), the last position of an
    event, and the changes of the log's id."""

    rows: list[HeadRow]
    last: int
    id_changes: list[LogIdChange]


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    """A read-only connection. Raises CannotAudit for every error of the database, also within the block."""
    connection = await _connect(url)
    try:
        yield connection
    except BaseException as error:
        connection.terminate()  # an orderly close would wait for the rest of the answer
        if isinstance(error, asyncpg.UndefinedTableError):
            raise CannotAudit(f"this database holds no event log, or one of an older schema: {error}") from error
        if isinstance(error, asyncpg.PostgresError | asyncpg.InterfaceError | ConnectionResetError):
            raise CannotAudit(f"the database cannot be read: {error}") from error
        raise
    await connection.close()


async def _connect(url: str) -> Connection:
    try:
        async with asyncio.timeout(CONNECT_SECONDS):
            connection = await asyncpg.connect(url)
            # Not when connecting: a pooler refuses connections that ask for these.
            await connection.execute("set default_transaction_read_only = on; set statement_timeout = 0")
            return connection
    except TimeoutError as error:
        raise CannotAudit(f"the database does not answer within {CONNECT_SECONDS:.0f} s") from error
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
        raise CannotAudit(f"the database cannot be read: {error}") from error


async def read_log_head(connection: Connection) -> LogHead:
    row = await connection.fetchrow(_LOG_HEAD)
    assert row is not None, "a select without a table has one row"
    rows = [
        HeadRow(log_id, position, digest, int.from_bytes(recorded_at, signed=True))
        for log_id, position, digest, recorded_at in row[0]
    ]
    id_changes = [
        LogIdChange(log_id, replaces, position, int.from_bytes(given_at, signed=True), reason)
        for log_id, replaces, position, given_at, reason in row[2]
    ]
    return LogHead(rows, row[1] or 0, id_changes)


async def read_hashes(connection: Connection, positions: Iterable[int]) -> dict[int, bytes]:
    """Position -> stored hash, for those of the positions that are in the log."""
    rows = await connection.fetch(_HASHES, sorted(set(positions)))
    return {row["position"]: row["hash"] for row in rows}


async def read_rows(
    connection: Connection, after: int | None, last: int, take: Callable[[Iterable[Row]], object]
) -> None:
    """Calls `take` with the rows after a position (None: from the first row on) up to `last`, as they arrive."""
    while after is None or after < last:
        upto = min((after or 0) + STRIDE, last)
        if not await _copy(connection, after, upto, take):
            # Skip a gap of any length at once.
            upcoming = await connection.fetchval(_NEXT, upto)
            upto = last if upcoming is None else max(upto, upcoming - 1)
        after = upto


async def _copy(connection: Connection, after: int | None, upto: int, take: Callable[[Iterable[Row]], object]) -> int:
    """Returns the number of rows."""
    decoder = RowDecoder()

    async def sink(chunk: bytes) -> None:
        take(decoder.feed(chunk))

    query = _ROWS.format("is not null" if after is None else f"> {after}", upto)
    status: str = await connection.copy_from_query(query, output=sink, format="binary")
    return int(status.removeprefix("COPY "))
