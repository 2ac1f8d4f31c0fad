"""The servers of a run, with fsync on, in a temporary directory."""

from __future__ import annotations

import asyncio
import itertools
import secrets
import tempfile
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias, TypeVar
from urllib.parse import urlsplit

import asyncpg
import uvloop

from cli.stack.embedded_postgres import SHARED_BUFFERS, EmbeddedPostgres
from cli.stack.embedded_server import free_port
from cli.stack.embedded_valkey import EmbeddedValkey
from cli.stack.processes import last_lines
from cli.stack.runner import CONNECTS_AS
from cli.stack.server import Server
from cli.stack.service import Service
from shared.migrations import migrate

READY_SECONDS = 60.0

_FILES = "(select 'events'::regclass oid union all select indexrelid from pg_index where indrelid = 'events'::regclass)"
_PREWARM = f"""
create extension if not exists pg_prewarm;
create extension if not exists pg_buffercache;
select pg_prewarm(oid) from {_FILES}
"""
_SHARE_HELD = f"""
select count(*) * current_setting('block_size')::float8 / (select sum(pg_relation_size(oid)) from {_FILES})::float8
from pg_buffercache
where reldatabase = (select oid from pg_database where datname = current_database())
and relfilenode in (select pg_relation_filenode(oid) from {_FILES}) and relforknumber = 0
"""

T = TypeVar("T")
S = TypeVar("S", bound=Server)
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class Servers:
    """A running PostgreSQL; creates databases, Valkeys and services on demand."""

    def __init__(self, directory: Path, postgres: EmbeddedPostgres) -> None:
        self.directory = directory
        self.postgres = postgres
        self._passwords = {f"orders_{role}": secrets.token_urlsafe(16) for role in set(CONNECTS_AS.values())}
        self._numbers = itertools.count(1)
        self._databases: set[str] = set()

    def url(self, database: str) -> str:
        return urlsplit(self.postgres.url)._replace(path=f"/{database}").geturl()

    def url_as(self, role: str, database_url: str) -> str:
        url = urlsplit(database_url)
        password = self._passwords[f"orders_{role}"]
        return url._replace(netloc=f"orders_{role}:{password}@{url.hostname}:{url.port}").geturl()

    def database(self, name: str | None = None) -> str:
        """Creates and migrates an empty database; returns its URL."""
        name = name or f"bench_{next(self._numbers)}"
        self._execute(f"create database {name}")
        asyncio.run(migrate(self.url(name), self._passwords))
        self._databases.add(name)
        return self.url(name)

    @property
    def databases(self) -> set[str]:
        """The names of the databases created so far."""
        return set(self._databases)

    def copy(self, database_url: str, name: str | None = None) -> str:
        """Copies a database by its files; returns the URL of the copy. The original must have no sessions."""
        name = name or f"bench_{next(self._numbers)}"
        # Rights on a database are not copied; by default every role may connect.
        self._execute(f"create database {name} template {urlsplit(database_url).path[1:]} strategy file_copy")
        self._databases.add(name)
        return self.url(name)

    def drop(self, database_url: str) -> None:
        name = urlsplit(database_url).path[1:]
        self._execute(f"drop database {name} with (force)")
        self._databases.discard(name)

    def vacuum(self, database_url: str) -> None:
        """Vacuums now, so that autovacuum does not during a measure."""
        self._execute("vacuum (analyze) events, log_head", database_url)

    def prewarm(self, database_urls: Collection[str]) -> dict[str, float]:
        """Loads logs and their indexes into PostgreSQL's shared buffers; returns the cached share of each, by URL.

        Restarts PostgreSQL first: it would rather keep buffers in use than those read once."""
        self.postgres.stop()
        self.postgres.start()
        for url in database_urls:
            self._execute(_PREWARM, url)
        return {url: with_connection(url, _share_held) for url in database_urls}

    def checkpoint(self) -> None:
        """Writes dirty pages out, so that a measure does not pay for the one before it."""
        with_connection(self.postgres.url, checkpoint)

    def _execute(self, statement: str, database_url: str | None = None) -> None:
        with_connection(database_url or self.postgres.url, lambda connection: connection.execute(statement))

    @contextmanager
    def valkey(self) -> Iterator[EmbeddedValkey]:
        """Runs an empty Valkey."""
        with EmbeddedValkey(self.directory / f"valkey-{next(self._numbers)}") as valkey:
            yield valkey

    @contextmanager
    def services(
        self,
        database_url: str,
        *,
        commands: int = 0,
        queries: int = 0,
        settings: Mapping[str, str] = MappingProxyType({}),
    ) -> Iterator[Services]:
        """Runs command and query processes, each on its own port; with queries also a projector and a Valkey."""
        with ExitStack() as stack:
            valkey = stack.enter_context(self.valkey()) if queries else None
            names = ["command"] * commands + ["projector"] * bool(queries) + ["query"] * queries
            running = [self._service(name, database_url, valkey, settings) for name in names]
            for service in running:
                service.spawn()
                stack.callback(service.stop)
            for service in running:
                _wait_for(service)
            yield Services(running, self.postgres, valkey)

    def _service(
        self, name: str, database_url: str, valkey: EmbeddedValkey | None, settings: Mapping[str, str]
    ) -> Service:
        port = free_port()
        log = self.directory / f"{name}-{port}.log"
        environment = {
            "DATABASE_URL": self.url_as(CONNECTS_AS[name], database_url),
            "REDIS_URL": valkey.url if valkey else "redis://127.0.0.1:1/0",  # the command service does not use Redis
            "HOST": "127.0.0.1",
            f"{name.upper()}_PORT": str(port),
            **settings,
        }
        if valkey is None:
            environment["THROTTLE_FOR"] = ""  # without a projector every read model lags
        return Service(name, port, log, environment)


class Services:
    """Running services and their servers."""

    def __init__(self, running: list[Service], postgres: EmbeddedPostgres, valkey: EmbeddedValkey | None) -> None:
        self._running = running
        self._servers: list[Server] = [*running, postgres, *([valkey] if valkey else [])]

    def ports(self, name: str) -> list[int]:
        return [service.port for service in self._running if service.name == name]

    def port(self, name: str) -> int:
        return self.ports(name)[0]

    @property
    def pids(self) -> dict[str, list[int]]:
        """Process ids by name; the second process of a service is `name 2`."""
        seen: dict[str, list[int]] = {}
        for server in self._servers:
            number = sum(name.startswith(server.name) for name in seen)
            assert server.pid is not None, f"{server.name} has died"
            seen[f"{server.name} {number + 1}" if number else server.name] = [server.pid]
        return seen


@contextmanager
def servers(directory: Path | None = None, shared_buffers: str = SHARED_BUFFERS) -> Iterator[Servers]:
    """Runs PostgreSQL with its data below `directory`, which should be on a disk, not in memory."""
    with (
        tempfile.TemporaryDirectory(prefix="orders-bench-", dir=directory) as made,
        EmbeddedPostgres(Path(made) / "postgres", flush_initial_files=False, shared_buffers=shared_buffers) as postgres,
    ):
        yield Servers(Path(made), postgres)


@contextmanager
def started(server: S) -> Iterator[S]:
    server.spawn()
    try:
        _wait_for(server)
        yield server
    finally:
        server.stop()


def _wait_for(server: Server) -> None:
    deadline = time.monotonic() + READY_SECONDS
    while not server.ready():
        if server.pid is None or time.monotonic() > deadline:
            raise RuntimeError(f"{server.name} is not ready: {server.state}\n{last_lines(server.log, 10)}")
        time.sleep(0.02)  # polls a condition in another process


def with_connection(url: str, work: Callable[[Connection], Awaitable[T]]) -> T:
    """Returns the result of `work` on a new connection, on uvloop as in the product."""

    async def asked() -> T:
        connection = await connect(url)
        try:
            return await work(connection)
        finally:
            await connection.close()

    return uvloop.run(asked())


async def connect(url: str) -> Connection:
    """Connects with the session settings of the product."""
    return await asyncpg.connect(url, server_settings={"jit": "off", "timezone": "UTC"})


async def checkpoint(connection: Connection) -> None:
    """Writes dirty pages out, so that a measure does not pay for the one before it."""
    await connection.execute("checkpoint")


async def _share_held(connection: Connection) -> float:
    return float(await connection.fetchval(_SHARE_HELD))
