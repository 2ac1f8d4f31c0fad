"""Connections to PostgreSQL: what bounds their transactions, where the server can."""

from __future__ import annotations

import pytest
from asyncpg.types import ServerVersion

from shared.postgres import bounds, connect, create_pool, unbound
from shared.settings import Settings

_ASK = "show transaction_timeout"


@pytest.mark.parametrize(("major", "asked"), [(15, False), (16, False), (17, True), (18, True)])
def test_only_a_server_that_knows_the_setting_is_asked_for_it(major: int, asked: bool) -> None:
    assert ("transaction_timeout" in bounds(ServerVersion(major, 0, 0, "final", 0))) is asked


@pytest.mark.promise("failures", "No connection keeps a transaction open for long (PostgreSQL 17 or newer)")
async def test_transactions_are_bounded_on_every_connection_also_when_a_pool_has_had_it_back(
    settings: Settings,
) -> None:
    alone = await connect(settings, "test")
    if not bounds(alone.get_server_version()):
        pytest.skip("this server cannot")
    assert await alone.fetchval(_ASK) == "10s"
    await alone.close()

    async with await create_pool(settings, "test", max_size=1) as pool:
        for _ in range(2):
            async with pool.acquire() as connection, connection.transaction():
                assert await connection.fetchval(_ASK) == "10s"
                await unbound(connection)
                assert await connection.fetchval(_ASK) == "0"
