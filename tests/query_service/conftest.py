from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from projector.__main__ import create_app as create_projector
from query_service.app import create_app
from shared.settings import Settings
from tests.roles import settings_of
from tests.running import eventually, free_ports, running_app


@pytest.fixture
async def queries_alone(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A query service without a projector."""
    (port,) = free_ports(1)
    app = create_app(settings_of(settings, "orders_auditor"))
    limits = httpx.Limits(max_connections=200)
    async with (
        running_app(app, port) as url,
        httpx.AsyncClient(base_url=url, timeout=40, limits=limits) as client,
    ):
        yield client


@pytest.fixture
async def projector(settings: Settings) -> AsyncIterator[str]:
    """The address of a running projector."""
    (port,) = free_ports(1)
    async with running_app(create_projector(settings_of(settings, "orders_projector")), port) as url:
        yield url


@pytest.fixture
async def queries(projector: str, queries_alone: httpx.AsyncClient) -> httpx.AsyncClient:
    """A query service whose read models follow the log."""
    assert projector

    async def ready() -> bool:
        return (await queries_alone.get("/readyz")).status_code == 200

    await eventually(ready)
    return queries_alone
