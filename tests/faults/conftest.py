"""Every test here is marked `faults`: `make test` leaves them out, `make test-faults` runs nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from cli.stack.embedded_postgres import EmbeddedPostgres
from cli.stack.embedded_valkey import EmbeddedValkey
from shared.migrations import migrate
from tests.faults.shop import Servers, Shop
from tests.roles import PASSWORDS

HERE = Path(__file__).parent
LONGEST_SECONDS = 150  # processes start and time-outs run out on a machine that others use, too


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.faults)
            if item.get_closest_marker("timeout") is None:
                item.add_marker(pytest.mark.timeout(LONGEST_SECONDS))


@pytest.fixture
def servers(database_url: str, redis_url: str) -> Servers:
    """A fresh database and an empty Redis, on servers that all tests share: to be used, not to be harmed."""
    return Servers(database_url, redis_url)


@pytest.fixture
def shop(tmp_path: Path, servers: Servers) -> Iterator[Shop]:
    """Not started."""
    shop = Shop(tmp_path, servers)
    yield shop
    shop.close()


@pytest.fixture
async def mortal_postgres(tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A migrated server of the test's own, durable as in production, to be killed."""
    with EmbeddedPostgres(tmp_path / "postgres", flush_initial_files=False) as server:
        await migrate(server.url, PASSWORDS)
        yield server


@pytest.fixture
def mortal_valkey(tmp_path: Path) -> Iterator[EmbeddedValkey]:
    """A server of the test's own, to be stopped, emptied and replaced."""
    with EmbeddedValkey(tmp_path / "valkey") as server:
        yield server
