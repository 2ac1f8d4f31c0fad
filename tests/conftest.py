"""Real servers for every test: one PostgreSQL and one Valkey a session, a fresh database a test."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partialmethod
from pathlib import Path
from tempfile import TemporaryDirectory

import asyncpg
import httpx
import hypothesis
import pytest
import uvloop
from redis.asyncio import Redis

from cli.stack.embedded_postgres import EmbeddedPostgres
from cli.stack.embedded_valkey import EmbeddedValkey
from shared.logs import configure_logs
from shared.settings import Settings
from tests.recording import Recorder
from tests.running import clients_of, fresh_database, running_command_service, running_stack, settings_for

pytest_plugins = ["tests.subprocesses"]
# `make test-fast`, `make test` and `make test-thorough`. No deadline: other programs may be running.
hypothesis.settings.register_profile("fast", max_examples=10, deadline=None)
hypothesis.settings.register_profile("whole", max_examples=40, deadline=None)
hypothesis.settings.register_profile("thorough", max_examples=100, deadline=None)
hypothesis.settings.load_profile("whole")

# Httpx tries to import this package eight times a request. Python does not cache that it is not there: searching for it
# would cost a request a quarter of its time.
sys.modules["sniffio"] = None  # type: ignore[assignment]
# There is no TLS here: each client would read all certificates, each connection ask PostgreSQL for TLS first.
os.environ["PGSSLMODE"] = "disable"
httpx.AsyncClient.__init__ = partialmethod(httpx.AsyncClient.__init__, verify=False)  # type: ignore[assignment,method-assign]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    return {"uvloop": uvloop.new_event_loop}  # as in production


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest go first, so that the workers end together. Each test has an id of its own: of those
    that shared one, a worker would run one."""
    shared = [nodeid for nodeid, tests in Counter(item.nodeid for item in items).items() if tests > 1]
    assert not shared, shared
    folders = ("test_contract", "system/", "stack/", "import/", "replay/", "projector/")
    longest = [f"tests/{name}" for name in folders]
    items.sort(
        key=lambda item: next((n for n, start in enumerate(longest) if item.nodeid.startswith(start)), len(longest))
    )


@pytest.fixture(scope="session", autouse=True)
def _logs() -> None:
    """As in production, but quiet; structlog's own tracebacks would cost a test seconds."""
    configure_logs("test", "WARNING")


@pytest.fixture(scope="session")
def server_directory() -> Iterator[Path]:
    """Not below pytest's base directory: the start of another run closes that to PostgreSQL, which is not root.

    In memory where there is plenty: a database for a test is then copied in half the time.
    """
    memory = Path("/dev/shm")
    plenty = memory.is_dir() and shutil.disk_usage(memory).free > 4 * 2**30
    with TemporaryDirectory(prefix="orders-test-", dir=memory if plenty else None) as directory:
        yield Path(directory)


@pytest.fixture(scope="session")
def postgres(server_directory: Path) -> Iterator[EmbeddedPostgres]:
    with EmbeddedPostgres(server_directory / "postgres", flush_initial_files=False) as server:
        asyncio.run(_stop_waiting_for_the_disk(server.url))
        yield server


async def _stop_waiting_for_the_disk(url: str) -> None:
    """A database a test would otherwise spend its time in fsync. Tests that crash servers bring their own."""
    connection = await asyncpg.connect(url)
    await connection.execute("alter system set fsync = off")
    await connection.execute("select pg_reload_conf()")
    await connection.close()


@pytest.fixture(scope="session")
def valkey(server_directory: Path) -> Iterator[EmbeddedValkey]:
    with EmbeddedValkey(server_directory / "valkey") as server:
        yield server


@pytest.fixture
async def database_url(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """An empty, migrated database of the test's own."""
    async with fresh_database(postgres.url) as url:
        yield url


@pytest.fixture
async def connection(database_url: str) -> AsyncIterator[asyncpg.Connection[asyncpg.Record]]:
    connection = await asyncpg.connect(database_url)
    yield connection
    await connection.close()


@pytest.fixture
def recorder(connection: asyncpg.Connection[asyncpg.Record]) -> Recorder:
    """Writes events straight into the log."""
    return Recorder(connection)


@pytest.fixture
async def redis_url(valkey: EmbeddedValkey) -> str:
    """An empty Valkey."""
    async with Redis.from_url(valkey.url) as client:
        await client.flushall()
    return valkey.url


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url) as client:
        yield client


@pytest.fixture
def settings(database_url: str, redis_url: str) -> Settings:
    return settings_for(database_url, redis_url)


@pytest.fixture
async def command_url(settings: Settings) -> AsyncIterator[str]:
    """A running command service."""
    async with running_command_service(settings) as url:
        yield url


@pytest.fixture
async def commands(command_url: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=command_url, timeout=30) as client:
        yield client


@pytest.fixture
async def stack(settings: Settings) -> AsyncIterator[Settings]:
    """Command service, projector and query service, running together."""
    async with running_stack(settings):
        yield settings


@pytest.fixture
def query_url(stack: Settings) -> str:
    return f"http://{stack.host}:{stack.query_port}"


@pytest.fixture
async def shop(stack: Settings) -> AsyncIterator[tuple[httpx.AsyncClient, httpx.AsyncClient]]:
    """(commands, queries): clients of a running stack."""
    async with clients_of(stack) as clients:
        yield clients
