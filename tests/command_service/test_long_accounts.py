"""An account of 100,000 entries is loaded and decided on as fast as one of 100: its snapshot is bounded."""

from __future__ import annotations

import statistics
from datetime import timedelta
from time import perf_counter

import asyncpg
import pytest

from command_service.decision import CommandMetadata
from command_service.domain.account import DepositMoney
from shared.aggregates.account import ACCOUNT
from shared.eventstore.snapshots import Snapshots
from shared.eventstore.store import PostgresAppendSession, PostgresEventStore
from tests.accounts import day, deposited, opened
from tests.command_service.processes import handling
from tests.recording import Connection, put_in_log

SHORT, LONG = 100, 100_000
KEY = b"key"  # of snapshots: that of `handling`


async def fill(connection: Connection, account_id: str, entries: int) -> None:
    """Deposits of one over a year, straight into the log, and a snapshot of 50 entries before the last."""
    stream_id = ACCOUNT.stream_of(account_id)
    await put_in_log(connection, stream_id, opened(), at=day(-364, 0))
    await put_in_log(connection, stream_id, deposited(1), after=1, at=day(-364))
    # The log need not verify, it only has to be long.
    await connection.execute(
        """
        insert into events
        select h.position + n, $1, n + 2, gen_random_uuid(), e.event_type, 1, e.data, e.metadata,
               e.occurred_at + n * $3::interval, h.recorded_at, e.hash, e.owner
        from log_head h, events e, generate_series(1, $2 - 2) as n where e.stream_id = $1 and e.version = 2
        """,
        stream_id,
        entries,
        timedelta(days=365) / entries,
    )
    await connection.execute("update log_head set position = (select max(position) from events)")
    snapshots = Snapshots(PostgresEventStore(connection), KEY)
    await snapshots.save(ACCOUNT, stream_id, await snapshots.load(ACCOUNT, stream_id))


@pytest.mark.promise("commands", "An account of 100,000 entries answers a command as fast as one of 100")
async def test_a_command_on_a_long_account_takes_no_longer(
    connection: asyncpg.Connection[asyncpg.Record], database_url: str
) -> None:
    await fill(connection, "short", SHORT)
    await fill(connection, "long", LONG)

    await fill(connection, "warm", SHORT)

    async def open_session() -> PostgresAppendSession:
        return PostgresAppendSession(await asyncpg.connect(database_url))

    async def seconds(account_id: str) -> float:
        """In a process that has no state of it yet."""
        async with (
            asyncpg.create_pool(database_url, min_size=1, max_size=2) as pool,
            handling(PostgresEventStore(pool), open_session) as handler,
        ):
            await handler.handle(DepositMoney("warm", 1, "r"), CommandMetadata("test"))
            begun = perf_counter()
            await handler.handle(DepositMoney(account_id, 1, "r"), CommandMetadata("test"))
            return perf_counter() - begun

    times: dict[str, list[float]] = {"short": [], "long": []}
    for _ in range(15):  # in turns, so that what else the machine does meets both
        for account_id, taken in times.items():
            taken.append(await seconds(account_id))

    assert statistics.median(times["long"]) < 2 * statistics.median(times["short"]), times
