"""Connections to PostgreSQL: what bounds their transactions, and how they leave a server that was demoted."""

from __future__ import annotations

from urllib.parse import urlsplit

import asyncpg
import pytest
from asyncpg.types import ServerVersion
from pydantic import SecretStr

from shared.eventstore.subscription import open_session
from shared.postgres import CONNECTION_LOST, ServerDemoted, connect, create_pool, session_settings, unbound
from shared.settings import Settings
from tests.roles import settings_of
from tests.running import free_ports

_ASK = "show transaction_timeout"
_PID = "select pg_backend_pid()"


@pytest.mark.parametrize(("major", "asked"), [(15, False), (16, False), (17, True), (18, True)])
def test_only_a_server_that_knows_the_setting_is_asked_for_it(major: int, asked: bool) -> None:
    assert ("transaction_timeout" in session_settings(ServerVersion(major, 0, 0, "final", 0))) is asked


@pytest.mark.promise("failures", "No connection keeps a transaction open for long (PostgreSQL 17 or newer)")
async def test_transactions_are_bounded_on_every_connection_also_when_a_pool_has_had_it_back(
    settings: Settings,
) -> None:
    alone = await connect(settings, "test")
    if alone.get_server_version().major < 17:
        pytest.skip("this server cannot")
    assert await alone.fetchval(_ASK) == "10s"
    await alone.close()

    async with await create_pool(settings, "test", max_size=1) as pool:
        for _ in range(2):
            async with pool.acquire() as connection, connection.transaction():
                assert await connection.fetchval(_ASK) == "10s"
                await unbound(connection)
                assert await connection.fetchval(_ASK) == "0"


async def read_only_by_default(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """For new sessions with the test's database, as on a server that was demoted."""
    database = await connection.fetchval("select quote_ident(current_database())")
    await connection.execute(f"alter database {database} set default_transaction_read_only = on")


async def test_no_session_begins_with_a_server_that_takes_no_writes(
    settings: Settings, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await read_only_by_default(connection)
    with pytest.raises(CONNECTION_LOST, match="read_write"):
        await connect(settings, "test")
    async with await create_pool(settings, "test") as pool:
        with pytest.raises(CONNECTION_LOST, match="read_write"):
            await pool.fetchval("select 1")


async def test_of_several_hosts_the_one_that_takes_writes_is_found(settings: Settings) -> None:
    url = urlsplit(settings.database_url.get_secret_value())
    hosts = f"{url.username}:{url.password}@127.0.0.1:{free_ports(1)[0]},{url.hostname}:{url.port}"
    several = settings.model_copy(update={"database_url": SecretStr(url._replace(netloc=hosts).geturl())})
    connection = await connect(several, "test")
    assert await connection.fetchval("select 1") == 1
    await connection.close()


async def test_a_pool_replaces_a_session_whose_server_takes_no_writes_any_more(settings: Settings) -> None:
    async with await create_pool(settings, "test", max_size=1) as pool:
        pid = await pool.fetchval(_PID)
        assert await pool.fetchval(_PID) == pid
        # As the server does itself when it is reconfigured: PostgreSQL reports the setting in either case.
        await pool.execute("set default_transaction_read_only = on")
        assert await pool.fetchval(_PID) != pid


async def test_a_pool_replaces_sessions_that_are_old(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shared.postgres.SESSION_SECONDS", 1e-6)
    async with await create_pool(settings, "test", max_size=1) as pool:
        assert len({await pool.fetchval(_PID) for _ in range(3)}) == 3


async def test_a_session_with_leases_is_closed_when_its_server_takes_no_writes_any_more(settings: Settings) -> None:
    async with open_session(settings_of(settings, "orders_projector"), lambda: None) as session:
        with pytest.raises(ServerDemoted):
            async with session.exclusive() as connection:
                await connection.execute("set default_transaction_read_only = on")
        assert session.lost
