from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from shared.settings import Settings
from tests.running import eventually, is_ready, running_projector, running_query_service


@pytest.fixture
async def queries_alone(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A query service without a projector."""
    async with running_query_service(settings) as queries:
        yield queries


@pytest.fixture
async def projector(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A running projector, which this is a client of."""
    async with running_projector(settings) as projector:
        yield projector


@pytest.fixture
async def lagging(settings: Settings, queries_alone: httpx.AsyncClient) -> httpx.AsyncClient:
    """A query service whose read models show the log as it was at the start of the test: no projector runs."""
    async with running_projector(settings) as projector:
        await eventually(lambda: is_ready(projector))
        await eventually(lambda: is_ready(queries_alone))
    return queries_alone


@pytest.fixture
async def queries(projector: httpx.AsyncClient, queries_alone: httpx.AsyncClient) -> httpx.AsyncClient:
    """A query service whose read models follow the log."""
    await eventually(lambda: is_ready(projector))
    await eventually(lambda: is_ready(queries_alone))
    return queries_alone
