"""Services for all tests of a module that leave them as they found them: orders have ids of their own."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest_asyncio
from redis.asyncio import Redis

from cli.stack.embedded_postgres import EmbeddedPostgres
from cli.stack.embedded_valkey import EmbeddedValkey
from tests.running import fresh_database, running_command_service, running_query_service, settings_for


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_services(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey
) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """(commands, queries), without a projector, for modules marked with `loop_scope="module"`."""
    async with Redis.from_url(valkey.url) as redis:
        await redis.flushall()
    async with fresh_database(postgres.url) as database_url:
        settings = settings_for(database_url, valkey.url)
        async with (
            running_command_service(settings) as url,
            httpx.AsyncClient(base_url=url, timeout=30) as commands,
            running_query_service(settings) as queries,
        ):
            yield commands, queries
