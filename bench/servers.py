"""The real servers of a run, fsync on, in a directory that is removed at the end."""

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
    """PostgreSQL, and what runs on it. Databases and Valkeys are made as they are asked for."""

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
        """The URL of a new, migrated, empty database."""
        name = name or f"bench_{next(self._numbers)}"
        self._execute(f"create database {name}")
        asyncio.run(migrate(self.url(name), self._passwords))
        self._databases.add(name)
        return self.url(name)

    @property
    def databases(self) -> set[str]:
        """The names of those that there are."""
        return set(self._databases)

    def copy(self, database_url: str, name: str | None = None) -> str:
        """The URL of a copy, made of the files: nobody may be connected."""
        name = name or f"bench_{next(self._numbers)}"
        # Rights on a database are not copied with it; the default lets every role connect.
        self._execute(f"create database {name} template {urlsplit(database_url).path[1:]} strategy file_copy")
        self._databases.add(name)
        return self.url(name)

    def drop(self, database_url: str) -> None:
        name = urlsplit(database_url).path[1:]
        self._execute(f"drop database {name} with (force)")
        self._databases.discard(name)

    def vacuum(self, database_url: str) -> None:
        """What autovacuum would do some time, and then in the middle of a measure."""
        self._execute("vacuum (analyze) events, log_head", database_url)

    def prewarm(self, database_urls: Collection[str]) -> dict[str, float]:
        """Reads logs and their indexes into PostgreSQL's memory; the share of each that it holds then, by URL.

        It starts with an empty memory: what was in use before would be kept rather than what is read once."""
        self.postgres.stop()
        self.postgres.start()
        for url in database_urls:
            self._execute(_PREWARM, url)
        return {url: with_connection(url, _share_held) for url in database_urls}

    def checkpoint(self) -> None:
        """As `checkpoint`, through a connection of its own."""
        with_connection(self.postgres.url, checkpoint)

    def _execute(self, statement: str, database_url: str | None = None) -> None:
        with_connection(database_url or self.postgres.url, lambda connection: connection.execute(statement))

    @contextmanager
    def valkey(self) -> Iterator[EmbeddedValkey]:
        """An empty one."""
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
        """Command and query services, each a process with a port of its own; with queries a projector and a Valkey."""
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
            "REDIS_URL": valkey.url if valkey else "redis://127.0.0.1:1/0",  # commands do not use it
            "HOST": "127.0.0.1",
            f"{name.upper()}_PORT": str(port),
            **settings,
        }
        if valkey is None:
            environment["THROTTLE_FOR"] = ""  # there is no projector, so read models are as far behind as can be
        return Service(name, port, log, environment)


class Services:
    """Those that run, and what they run on."""

    def __init__(self, running: list[Service], postgres: EmbeddedPostgres, valkey: EmbeddedValkey | None) -> None:
        self._running = running
        self._servers: list[Server] = [*running, postgres, *([valkey] if valkey else [])]

    def ports(self, name: str) -> list[int]:
        return [service.port for service in self._running if service.name == name]

    def port(self, name: str) -> int:
        return self.ports(name)[0]

    @property
    def watch(self) -> dict[str, list[int]]:
        """Their process ids by name, a name for each of several processes."""
        seen: dict[str, list[int]] = {}
        for server in self._servers:
            number = sum(name.startswith(server.name) for name in seen)
            assert server.pid is not None, f"{server.name} has died"
            seen[f"{server.name} {number + 1}" if number else server.name] = [server.pid]
        return seen


@contextmanager
def servers(directory: Path | None = None, shared_buffers: str = SHARED_BUFFERS) -> Iterator[Servers]:
    """`directory` is where the data goes: to a disk that matters, not to memory."""
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
            raise RuntimeError(f"{server.name} does not get ready: {server.state}\n{last_lines(server.log, 10)}")
        time.sleep(0.02)  # a condition outside of this process: it can only be asked again


def with_connection(url: str, work: Callable[[Connection], Awaitable[T]]) -> T:
    """What `work` makes of a connection as the products' own are: on uvloop."""

    async def asked() -> T:
        connection = await connect(url)
        try:
            return await work(connection)
        finally:
            await connection.close()

    return uvloop.run(asked())


async def connect(url: str) -> Connection:
    """A connection as the products' own are."""
    return await asyncpg.connect(url, server_settings={"jit": "off", "timezone": "UTC"})


async def checkpoint(connection: Connection) -> None:
    """Writes out what is dirty, so that one measure does not pay for the one before it."""
    await connection.execute("checkpoint")


async def _share_held(connection: Connection) -> float:
    return float(await connection.fetchval(_SHARE_HELD))
