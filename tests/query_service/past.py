"""One query service for all tests about the past of a module; each has an order of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import NamedTuple

import asyncpg
import httpx
import pytest
import pytest_asyncio

from cli.stack.embedded_postgres import EmbeddedPostgres
from cli.stack.embedded_valkey import EmbeddedValkey
from shared.settings import Settings
from tests.orders import new_order_id
from tests.recording import Recorder
from tests.running import fresh_database, running_query_service, settings_for


class Past(NamedTuple):
    queries: httpx.AsyncClient
    recorder: Recorder
    settings: Settings
    order_id: str = ""

    @property
    def path(self) -> str:
        return f"/orders/{self.order_id}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_past(postgres: EmbeddedPostgres, valkey: EmbeddedValkey) -> AsyncIterator[Past]:
    async with fresh_database(postgres.url) as database_url:
        settings = settings_for(database_url, valkey.url)
        connection = await asyncpg.connect(database_url)
        async with running_query_service(settings) as queries:
            yield Past(queries, Recorder(connection), settings)
        await connection.close()


@pytest.fixture
def past(shared_past: Past) -> Past:
    """For modules marked with `loop_scope="module"`."""
    return shared_past._replace(order_id=new_order_id())
