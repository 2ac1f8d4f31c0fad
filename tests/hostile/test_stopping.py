"""A balancer notices that a service stops before the listener closes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from fastapi import FastAPI

from shared.http.application import create_api
from shared.http.server import serve
from shared.settings import Settings
from tests.given_when_then import problem
from tests.running import eventually, free_ports, is_ready


def application(settings: Settings) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield

    async def ready() -> None:
        pass

    return create_api(title="a", description="b", settings=settings, lifespan=lifespan, ready=ready)


@pytest.mark.promise("requests", "A service that stops says so in `/readyz` for `DRAIN_SECONDS`, and goes on meanwhile")
async def test_a_service_that_stops_says_so_before_it_stops_listening() -> None:
    [port] = free_ports(1)
    given = {"database_url": "postgresql://nobody", "redis_url": "redis://nobody", "drain_seconds": 1.0}
    settings = Settings.model_validate(given)
    serving = asyncio.create_task(serve(application(settings), port, settings))
    async with httpx.AsyncClient(base_url=f"http://{settings.host}:{port}") as client:

        async def is_up() -> bool:
            try:
                return await is_ready(client)
            except httpx.ConnectError:
                return False

        async def is_stopping() -> bool:
            return not await is_ready(client)

        await eventually(is_up)
        stopping = asyncio.get_running_loop().time()
        serving.cancel()  # as SIGTERM, which would end the test as well
        await eventually(is_stopping)
        answer = await client.get("/readyz")
        assert problem(answer, 503, "not-ready")["detail"] == "The service is stopping."
        assert answer.headers["connection"] == "close"
        assert (await client.get("/livez")).status_code == 200
        await eventually(serving.done)
        assert asyncio.get_running_loop().time() - stopping >= settings.drain_seconds
        with pytest.raises(httpx.ConnectError):
            await client.get("/livez")
