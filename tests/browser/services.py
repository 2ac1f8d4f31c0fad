"""A stack whose processes a test stops and starts again, each at its port."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager

import httpx

from projector.__main__ import create_app as create_projector_app
from query_service.app import create_app as create_query_app
from shared.settings import Settings
from tests.roles import settings_of
from tests.running import clients_of, eventually, is_ready, running_app, running_command_service


class Service:
    def __init__(self, run: Callable[[], AbstractAsyncContextManager[object]]) -> None:
        self._run = run
        self._running = AsyncExitStack()

    async def start(self) -> None:
        await self._running.enter_async_context(self._run())

    async def stop(self) -> None:
        await self._running.aclose()


class Services:
    """`commands` and `queries` are clients: other ones than the page."""

    def __init__(self, settings: Settings, commands: httpx.AsyncClient, queries: httpx.AsyncClient) -> None:
        projecting, querying = settings_of(settings, "orders_projector"), settings_of(settings, "orders_query")
        self.settings, self.commands, self.queries = settings, commands, queries
        self.command = Service(lambda: running_command_service(settings))
        self.projector = Service(lambda: running_app(create_projector_app(projecting), settings.projector_port))
        self.query = Service(lambda: running_app(create_query_app(querying), settings.query_port))

    async def command_order(self, order_id: str, command: str, **body: object) -> str:
        """Another client's command, such as `payment`. Returns its token."""
        method = "PUT" if command == "shipping-address" else "POST"
        answer = await self.commands.request(method, f"/orders/{order_id}/{command}", json=body)
        assert answer.is_success, answer.text
        return answer.headers["Consistency-Token"]


@asynccontextmanager
async def running_services(settings: Settings) -> AsyncIterator[Services]:
    async with clients_of(settings) as (commands, queries):
        services = Services(settings, commands, queries)
        every = (services.command, services.projector, services.query)
        try:
            for service in every:
                await service.start()
            await eventually(lambda: is_ready(queries))
            yield services
        finally:
            for service in reversed(every):
                await service.stop()
