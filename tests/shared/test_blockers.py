"""A session that blocks the log is named by pid, application and age of its transaction, never by its statement."""

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
from shared.eventstore.blockers import BLOCKED, LONG_TRANSACTION, Blocker, SlowCallMonitor, read_blockers
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
    """Of another program, with an open transaction in which it has executed the statements."""
    url = settings.database_url.get_secret_value()
    connection = await asyncpg.connect(url, server_settings={"application_name": application})
    await connection.execute("begin")
    for statement in statements:
        await connection.execute(statement)
    yield connection
    await connection.close()


@asynccontextmanager
async def waiting_session(settings: Settings) -> AsyncIterator[int]:
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
        named[:] = await read_blockers(connection, old_seconds)
        return bool(named)

    await eventually(some)
    return named


@pytest.mark.parametrize("role", ["orders_command", "orders_projector", "orders_auditor"])
async def test_the_session_that_holds_the_head_of_the_log_is_named_to_each_role(settings: Settings, role: Role) -> None:
    asking = await asyncpg.connect(url_of(settings.database_url.get_secret_value(), role))
    async with session(settings, "psql of a stranger", TAKE_THE_HEAD) as rival, waiting_session(settings) as waiting:
        (blocker,) = await found(asking)
        assert blocker[:3] == (BLOCKED, waiting, "orders-appender")
        assert blocker[4:7] == (rival.get_server_pid(), "psql of a stranger", "idle in transaction")
        assert blocker.waited_seconds is not None
        assert blocker.transaction_seconds is not None
        assert 0 < blocker.waited_seconds < blocker.transaction_seconds
    assert await read_blockers(asking, NEVER) == []
    await asking.close()


async def test_of_a_queue_its_first_is_named(settings: Settings, connection: Connection) -> None:
    async with AsyncExitStack() as queue:
        first = await queue.enter_async_context(session(settings, "first", TAKE_THE_HEAD))
        waiting = {await queue.enter_async_context(waiting_session(settings)) for _ in range(3)}

        async def all_wait() -> bool:
            return {blocker.blocked_pid for blocker in await read_blockers(connection, NEVER)} == waiting

        await eventually(all_wait)
        assert {blocker.pid for blocker in await read_blockers(connection, NEVER)} == {first.get_server_pid()}


async def test_sessions_of_other_programs_that_wait_for_each_other_are_not_named(
    settings: Settings, connection: Connection
) -> None:
    async with session(settings, "first", TAKE_THE_HEAD), session(settings, "second") as second:
        waiting = asyncio.create_task(second.execute(TAKE_THE_HEAD))
        await eventually(
            lambda: connection.fetchval("select exists (select from pg_locks where not granted and pid is not null)")
        )
        assert await read_blockers(connection, NEVER) == []
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
        assert await read_blockers(connection, NEVER) == []
        (blocker,) = await found(connection, old_seconds=0.2)
        assert blocker[:4] == (LONG_TRANSACTION, None, None, None)
        assert blocker[4:7] == (idle.get_server_pid(), "a report", "idle in transaction")
        assert blocker.transaction_seconds is not None
        assert 0.2 < blocker.transaction_seconds < 60


async def test_without_the_right_to_see_other_sessions_the_blocker_is_named_without_its_state(
    settings: Settings, connection: Connection
) -> None:
    async with session(settings, "psql", TAKE_THE_HEAD) as rival, waiting_session(settings):
        async with AsyncExitStack() as undo:
            rights = connection.transaction()  # roles belong to the server that other tests use, too
            await rights.start()
            undo.push_async_callback(rights.rollback)
            await connection.execute("revoke pg_read_all_stats from orders_owner")
            (blocker,) = await found(connection)
        assert (blocker.pid, blocker.application) == (rival.get_server_pid(), "psql")
        assert (blocker.state, blocker.transaction_seconds) == (None, None)


async def test_a_slow_call_logs_the_blocker_once(settings: Settings) -> None:
    ours = settings_of(settings, "orders_projector")
    monitor = SlowCallMonitor(partial(connect, ours, "blockers"), NEVER, patience=0.25)
    with structlog.testing.capture_logs() as logged:
        async with session(settings, "psql", TAKE_THE_HEAD) as rival, waiting_session(settings):
            with monitor.watch("reading"):
                await eventually(lambda: logged)
            with monitor.watch("reading"):
                assert monitor._reading is not None
                await eventually(monitor._reading.done)
                asked = monitor._reading
                await eventually(lambda: monitor._reading is not asked and monitor._reading and monitor._reading.done())
        with monitor.watch("something quick"):
            pass
    await monitor.close()
    (line,) = logged
    assert (line["event"], line["what"]) == ("slow call", "reading")
    (named,) = line["blockers"]
    assert (named["pid"], named["application"]) == (rival.get_server_pid(), "psql")
    assert named["transaction_age_ms"] > 0


async def test_a_server_that_cannot_be_reached_is_logged_and_fails_no_call(settings: Settings) -> None:
    (closed_port,) = free_ports(1)
    away = settings.model_copy(update={"database_url": SecretStr(f"postgresql://x:y@127.0.0.1:{closed_port}/x")})
    monitor = SlowCallMonitor(partial(connect, away, "blockers"), NEVER, patience=0.0)
    with structlog.testing.capture_logs() as logged, monitor.watch("reading"):
        await eventually(lambda: logged)
    await monitor.close()
    assert "ConnectionRefusedError" in logged[0]["error"]


async def test_transactions_that_no_session_waits_for_yet_are_logged_once_and_counted(
    settings: Settings, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    counts: list[int] = []
    measure = blockers._measure

    def measured(found: list[Blocker]) -> None:
        counts.append(len(found))
        measure(found)

    monkeypatch.setattr(blockers, "_measure", measured)
    with structlog.testing.capture_logs() as logged:
        async with session(settings, "a report", "select 1") as idle:
            polling = asyncio.create_task(blockers.monitor_blockers(connection, old_seconds=0.1, every=0.05))
            await eventually(lambda: counts.count(1) >= 3)
            assert STALLS.labels(LONG_TRANSACTION)._value.get() == 1
        await eventually(lambda: counts[-1] == 0)
        polling.cancel()
        await asyncio.wait([polling])
    (line,) = logged
    assert (line["event"], line["kind"], line["pid"]) == (
        "event log blocked",
        LONG_TRANSACTION,
        idle.get_server_pid(),
    )
    assert STALLS.labels(LONG_TRANSACTION)._value.get() == 0
