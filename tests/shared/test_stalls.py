"""Who is in the way of the log is named: by pid, application and the age of its transaction, never by its statement."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import TypeAlias

import asyncpg
import pytest
import structlog
from pydantic import SecretStr

from shared.eventstore import blockers
from shared.eventstore.blockers import BLOCKED, LONG_TRANSACTION, Blocker, SlowCallMonitor, read_stalls
from shared.metrics import STALLS
from shared.postgres import connect
from shared.settings import Settings
from tests.roles import Role, settings_of, url_of
from tests.running import eventually, free_ports

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
NEVER = 3_600.0
TAKE_THE_HEAD = "select from log_head for update"


@asynccontextmanager
async def session(settings: Settings, application: str, *statements: str) -> AsyncIterator[Connection]:
    """Somebody else's, with an open transaction in which that was done."""
    url = settings.database_url.get_secret_value()
    connection = await asyncpg.connect(url, server_settings={"application_name": application})
    await connection.execute("begin")
    for statement in statements:
        await connection.execute(statement)
    yield connection
    await connection.close()


@asynccontextmanager
async def appender(settings: Settings) -> AsyncIterator[int]:
    """The pid of a session of ours that waits for the head of the log."""
    connection = await connect(settings, "appender")
    waiting = asyncio.create_task(connection.execute(TAKE_THE_HEAD))
    yield connection.get_server_pid()
    connection.terminate()
    await asyncio.wait([waiting])
    waiting.exception()


async def found(connection: Connection, old_seconds: float = NEVER) -> list[Blocker]:
    """Once there is something to find."""
    named: list[Blocker] = []

    async def some() -> bool:
        named[:] = await read_stalls(connection, old_seconds)
        return bool(named)

    await eventually(some)
    return named


@pytest.mark.parametrize("role", ["orders_command", "orders_projector", "orders_auditor"])
async def test_who_holds_the_head_of_the_log_is_named_to_each_role(settings: Settings, role: Role) -> None:
    asking = await asyncpg.connect(url_of(settings.database_url.get_secret_value(), role))
    async with session(settings, "psql of somebody", TAKE_THE_HEAD) as rival, appender(settings) as waiting:
        (stall,) = await found(asking)
        assert stall[:3] == (BLOCKED, waiting, "orders-appender")
        assert stall[4:7] == (rival.get_server_pid(), "psql of somebody", "idle in transaction")
        assert stall.waited_seconds is not None
        assert stall.transaction_seconds is not None
        assert 0 < stall.waited_seconds < stall.transaction_seconds
    assert await read_stalls(asking, NEVER) == []
    await asking.close()


async def test_of_a_queue_its_first_is_named(settings: Settings, connection: Connection) -> None:
    async with AsyncExitStack() as queue:
        first = await queue.enter_async_context(session(settings, "first", TAKE_THE_HEAD))
        waiting = {await queue.enter_async_context(appender(settings)) for _ in range(3)}

        async def all_wait() -> bool:
            return {stall.blocked_pid for stall in await read_stalls(connection, NEVER)} == waiting

        await eventually(all_wait)
        assert {stall.pid for stall in await read_stalls(connection, NEVER)} == {first.get_server_pid()}


async def test_strangers_who_wait_for_each_other_are_no_stall_of_ours(
    settings: Settings, connection: Connection
) -> None:
    async with session(settings, "first", TAKE_THE_HEAD), session(settings, "second") as second:
        waiting = asyncio.create_task(second.execute(TAKE_THE_HEAD))
        await eventually(
            lambda: connection.fetchval("select exists (select from pg_locks where not granted and pid is not null)")
        )
        assert await read_stalls(connection, NEVER) == []
        second.terminate()
        await asyncio.wait([waiting])
        waiting.exception()


@pytest.mark.parametrize(
    "statement",
    ["select count(*) from events", "create temporary table written (by_me integer)", TAKE_THE_HEAD],
)
async def test_a_transaction_that_has_been_open_for_long_is_named(
    settings: Settings, connection: Connection, statement: str
) -> None:
    async with session(settings, "a report", statement) as idle:
        assert await read_stalls(connection, NEVER) == []
        (stall,) = await found(connection, old_seconds=0.2)
        assert stall[:4] == (LONG_TRANSACTION, None, None, None)
        assert stall[4:7] == (idle.get_server_pid(), "a report", "idle in transaction")
        assert stall.transaction_seconds is not None
        assert 0.2 < stall.transaction_seconds < 60


async def test_without_the_right_to_see_other_sessions_who_is_in_the_way_is_named_all_the_same(
    settings: Settings, connection: Connection
) -> None:
    async with session(settings, "psql", TAKE_THE_HEAD) as rival, appender(settings):
        async with AsyncExitStack() as undo:
            rights = connection.transaction()  # roles belong to the server that other tests use, too
            await rights.start()
            undo.push_async_callback(rights.rollback)
            await connection.execute("revoke pg_read_all_stats from orders_owner")
            (stall,) = await found(connection)
        assert (stall.pid, stall.application) == (rival.get_server_pid(), "psql")
        assert (stall.state, stall.transaction_seconds) == (None, None)


async def test_whoever_waits_says_once_who_is_in_the_way(settings: Settings) -> None:
    ours = settings_of(settings, "orders_projector")
    watch = SlowCallMonitor(partial(connect, ours, "stalls"), NEVER, patience=0.25)
    with structlog.testing.capture_logs() as logged:
        async with session(settings, "psql", TAKE_THE_HEAD) as rival, appender(settings):
            with watch.watch("reading"):
                await eventually(lambda: logged)
            with watch.watch("reading"):
                assert watch._asking is not None
                await eventually(watch._asking.done)
                asked = watch._asking
                await eventually(lambda: watch._asking is not asked and watch._asking and watch._asking.done())
        with watch.watch("something quick"):
            pass
    await watch.close()
    (line,) = logged
    assert (line["event"], line["what"]) == ("stalled", "reading")
    (named,) = line["in_the_way"]
    assert (named["pid"], named["application"]) == (rival.get_server_pid(), "psql")
    assert named["transaction_age_ms"] > 0


async def test_a_server_that_cannot_be_asked_is_said_and_harms_nobody(settings: Settings) -> None:
    (nobody,) = free_ports(1)
    away = settings.model_copy(update={"database_url": SecretStr(f"postgresql://x:y@127.0.0.1:{nobody}/x")})
    watch = SlowCallMonitor(partial(connect, away, "stalls"), NEVER, patience=0.0)
    with structlog.testing.capture_logs() as logged, watch.watch("reading"):
        await eventually(lambda: logged)
    await watch.close()
    assert "ConnectionRefusedError" in logged[0]["error"]


async def test_transactions_that_nobody_waits_for_yet_are_said_once_and_measured(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[int] = []
    measure = blockers._measure

    def measured(found: list[Blocker]) -> None:
        looks.append(len(found))
        measure(found)

    monkeypatch.setattr(blockers, "_measure", measured)
    with structlog.testing.capture_logs() as logged:
        async with session(settings, "a report", "select 1") as idle:
            looking = asyncio.create_task(
                blockers.monitor_blockers(partial(connect, settings, "stalls"), old_seconds=0.1, every=0.05)
            )
            await eventually(lambda: looks.count(1) >= 3)
            assert STALLS.labels(LONG_TRANSACTION)._value.get() == 1
        await eventually(lambda: looks[-1] == 0)
        looking.cancel()
        await asyncio.wait([looking])
    (line,) = logged
    assert (line["event"], line["kind"], line["pid"]) == (
        "in the way of the log",
        LONG_TRANSACTION,
        idle.get_server_pid(),
    )
    assert STALLS.labels(LONG_TRANSACTION)._value.get() == 0
