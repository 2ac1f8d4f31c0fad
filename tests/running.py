"""Runs the real applications inside a test, on real ports, and waits for conditions.

Imports them when it does: conftest.py imports this module, also in the process that only hands tests to workers.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from socket import socket
from time import monotonic
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import asyncpg
import httpx
import uvicorn

from cli.stack.embedded_server import free_port
from shared.migrations import migrate
from shared.settings import Settings
from tests.key_encryption import SECRET
from tests.roles import PASSWORDS, ROLES, Role, settings_of

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from shared.http.protocol import ServerProtocol

_numbers = itertools.count(1)
_TEMPLATE = "migrated"


@asynccontextmanager
async def fresh_database(server_url: str) -> AsyncIterator[str]:
    """An empty, migrated database on the server, dropped at the end.

    Migrating takes ten times as long as copying what was migrated once.
    """
    name = f"test_{next(_numbers)}"
    server = await asyncpg.connect(server_url)
    try:
        await _make_template(server, server_url)
        # Copying files takes a third of the time of writing each page to the log of changes as well.
        await server.execute(f"create database {name} template {_TEMPLATE} strategy file_copy")
        url = urlsplit(server_url)._replace(path=f"/{name}").geturl()
        await _begin_another_log(url)
        yield url
        await _sessions_end(server, name)
        await server.execute(f"drop database {name} with (force)")
    finally:
        await server.close()


async def _sessions_end(server: asyncpg.Connection[asyncpg.Record], database: str) -> None:
    """Those that were closed a moment ago. A drop that finds one waits for a tenth of a second."""
    for _ in range(20):
        if not await server.fetchval("select count(*) from pg_stat_activity where datname = $1", database):
            return
        await asyncio.sleep(0.002)


async def _make_template(server: asyncpg.Connection[asyncpg.Record], server_url: str) -> None:
    if not await server.fetchval("select exists (select from pg_database where datname = $1)", _TEMPLATE):
        await server.execute(f"create database {_TEMPLATE}")
        await migrate(urlsplit(server_url)._replace(path=f"/{_TEMPLATE}").geturl(), PASSWORDS)


async def _begin_another_log(url: str) -> None:
    """As if it had been migrated on its own: with an id of its own, and open to the roles it is open to then."""
    connection = await asyncpg.connect(url)
    await connection.execute(
        "with fresh as (select gen_random_uuid() as id)"
        " update log_head set log_id = id, hash = sha256(uuid_send(id)) from fresh"
    )
    # Rights on a database are not copied with it.
    await connection.execute(
        f"revoke all on database {urlsplit(url).path[1:]} from public;"
        f" grant connect on database {urlsplit(url).path[1:]} to {', '.join(ROLES)}"
    )
    await connection.close()


def settings_for(database_url: str, redis_url: str, **changes: object) -> Settings:
    """Settings of a stack on free ports."""
    command, query, projector, processes = free_ports(4)
    return Settings.model_validate(
        {
            "database_url": database_url,
            "redis_url": redis_url,
            "command_port": command,
            "query_port": query,
            "projector_port": projector,
            "processes_port": processes,
            "projector_poll_seconds": 0.05,
            "heartbeat_seconds": 0.1,
            "allowed_hosts": "*",  # tests that write their requests themselves name any
            "snapshot_key": "the tests' key of snapshots",
            "key_encryption_key": SECRET,
            **changes,
        }
    )


def free_ports(count: int) -> list[int]:
    ports: set[int] = set()
    while len(ports) < count:
        ports.add(free_port())
    return list(ports)


async def eventually(condition: Callable[[], object], seconds: float = 10.0) -> None:
    """Returns once the condition (or what it awaits) is true; fails the test when it is not within the time."""
    deadline = monotonic() + seconds
    while True:
        answer = condition()
        if inspect.isawaitable(answer):
            answer = await answer
        if answer:
            return
        assert monotonic() < deadline, f"not within {seconds} s: {inspect.getsource(condition).strip()}"
        await asyncio.sleep(0.005)


def wait_until(condition: Callable[[], object], what: str, seconds: float = 20.0) -> None:
    """As `eventually`, without an event loop; `what` names the condition."""
    deadline = monotonic() + seconds
    while not condition():
        assert monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.02)


async def is_ready(service: httpx.AsyncClient) -> bool:
    return (await service.get("/readyz")).status_code == 200


class _Server(uvicorn.Server):
    """Stops as soon as it may: uvicorn sleeps a tenth of a second at a time, whenever a test ends."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.told_to_stop = asyncio.Event()

    async def main_loop(self) -> None:
        while not (await self.on_tick(0) or self.told_to_stop.is_set()):
            with suppress(TimeoutError):
                await asyncio.wait_for(self.told_to_stop.wait(), 1.0)

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        assert sockets is None
        for server in self.servers:
            server.close()
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await eventually(lambda: not (self.server_state.connections or self.server_state.tasks), seconds=30)
        await self.lifespan.shutdown()


@asynccontextmanager
async def running_app(
    app: ASGIApp, port: int, protocol: type[ServerProtocol] | None = None, root_path: str = ""
) -> AsyncIterator[str]:
    """The application on 127.0.0.1:port, as `shared.http.application.serve` runs it."""
    from shared.http.protocol import ServerProtocol

    config = uvicorn.Config(
        app,
        host="127.0.0.1",
        port=port,
        http=protocol or ServerProtocol,
        lifespan="on",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        root_path=root_path,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve())
    try:
        await eventually(lambda: server.started or task.done())
        assert server.started, "the server did not start"
        yield f"http://127.0.0.1:{port}"
    finally:
        server.told_to_stop.set()
        await task


@asynccontextmanager
async def running_command_service(settings: Settings) -> AsyncIterator[str]:
    """At `settings.command_port`; yields its URL."""
    from command_service.admission import protocol  # imported here: tests of one side must not need the other
    from command_service.app import create_app as create_command_app

    app = create_command_app(settings_of(settings, "orders_command"))
    async with running_app(app, settings.command_port, protocol(app.state.limit), settings.root_path) as url:
        yield url


@asynccontextmanager
async def running_projector(settings: Settings, **changes: object) -> AsyncIterator[httpx.AsyncClient]:
    """One more, with other settings, on a free port; yields a client of it."""
    from projector.__main__ import create_app

    async with _on_free_port(create_app(_changed(settings, "orders_projector", changes))) as client:
        yield client


@asynccontextmanager
async def running_query_service(settings: Settings, **changes: object) -> AsyncIterator[httpx.AsyncClient]:
    """One more, with other settings, on a free port; yields a client of it."""
    from query_service.app import create_app

    changed = _changed(settings, "orders_query", changes)
    async with _on_free_port(create_app(changed), changed.root_path) as client:
        yield client


def _changed(settings: Settings, role: Role, changes: Mapping[str, object]) -> Settings:
    return Settings.model_validate({**settings_of(settings, role).model_dump(), **changes})


@asynccontextmanager
async def _on_free_port(app: ASGIApp, root_path: str = "") -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=200)
    async with (
        running_app(app, free_port(), root_path=root_path) as url,
        httpx.AsyncClient(base_url=url, timeout=40, limits=limits) as client,
    ):
        yield client


@asynccontextmanager
async def running_stack(settings: Settings) -> AsyncIterator[None]:
    from projector.__main__ import create_app as create_projector_app
    from query_service.app import create_app as create_query_app

    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running_command_service(settings))
        projector = create_projector_app(settings_of(settings, "orders_projector"))
        await stack.enter_async_context(running_app(projector, settings.projector_port))
        query = create_query_app(settings_of(settings, "orders_query"))
        at = running_app(query, settings.query_port, root_path=settings.root_path)
        url = await stack.enter_async_context(at)
        async with httpx.AsyncClient(base_url=url) as client:
            await eventually(lambda: is_ready(client))
        yield


@asynccontextmanager
async def clients_of(stack: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """(commands, queries): clients of a running stack."""
    commands = httpx.AsyncClient(base_url=f"http://{stack.host}:{stack.command_port}", timeout=30)
    queries = httpx.AsyncClient(base_url=f"http://{stack.host}:{stack.query_port}", timeout=30)
    async with commands, queries:
        yield commands, queries
