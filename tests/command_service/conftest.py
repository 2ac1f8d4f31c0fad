"""One command service for all tests of a module that leave it as they found it: orders have ids of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import asyncpg
import httpx
import pytest
import pytest_asyncio

from cli.stack.embedded_postgres import EmbeddedPostgres
from cli.stack.embedded_valkey import EmbeddedValkey
from shared.settings import Settings
from tests.given_when_then import Orders
from tests.running import free_ports, fresh_database, running_command_service, settings_for


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def orders_settings(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> AsyncIterator[Settings]:
    async with fresh_database(postgres.url) as database_url:
        yield settings_for(database_url, valkey.url)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def orders(orders_settings: Settings) -> AsyncIterator[Orders]:
    """A running command service and its log, for modules marked with `loop_scope="module"`."""
    connection = await asyncpg.connect(orders_settings.database_url.get_secret_value())
    async with (
        running_command_service(orders_settings) as url,
        httpx.AsyncClient(base_url=url, timeout=30) as client,
    ):
        yield Orders(client, connection)
    await connection.close()


@pytest.fixture
def own_orders(commands: httpx.AsyncClient, connection: asyncpg.Connection[asyncpg.Record]) -> Orders:
    """The same, of the test's own: for tests that break something or change the settings."""
    return Orders(commands, connection)


@pytest.fixture
async def other_commands(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """Of a second command service on the same log."""
    [port] = free_ports(1)
    changed = settings.model_copy(update={"command_port": port})
    async with running_command_service(changed) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        yield client
