from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypeAlias
from urllib.parse import urlsplit

import asyncpg
import pytest
from typer.testing import CliRunner

from cli.main import app
from cli.stack.embedded_postgres import EmbeddedPostgres
from shared import migrations
from shared.migrations import IncompatibleDatabase, migrate

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

NAMES = [name for name, _ in migrations.migrations()]


@pytest.fixture
async def empty_database_url(postgres: EmbeddedPostgres) -> AsyncIterator[str]:
    """A database that was never migrated."""
    server = await asyncpg.connect(postgres.url)
    await server.execute("create database test_migrations")
    yield urlsplit(postgres.url)._replace(path="/test_migrations").geturl()
    await server.execute("drop database test_migrations with (force)")
    await server.close()


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def applied(url: str) -> list[str]:
    async with connected(url) as connection:
        return [row["name"] for row in await connection.fetch("select name from schema_migrations order by name")]


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """The migrations, for a test to change."""
    files = migrations.migrations()
    monkeypatch.setattr(migrations, "migrations", lambda: files)
    return files


def test_are_numbered_without_a_gap_and_named_as_the_convention_says() -> None:
    assert [int(name[:4]) for name in NAMES] == list(range(1, len(NAMES) + 1))


async def test_are_applied_once_and_in_order(empty_database_url: str) -> None:
    assert await migrate(empty_database_url) == NAMES
    assert await migrate(empty_database_url) == []
    assert await applied(empty_database_url) == NAMES


async def test_by_two_migrators_at_once_are_applied_by_one(empty_database_url: str) -> None:
    answers = await asyncio.gather(*[migrate(empty_database_url) for _ in range(3)])
    assert sorted(answers) == [[], [], NAMES]


async def test_an_edited_one_is_refused_before_anything_is_touched(
    empty_database_url: str, files: list[tuple[str, str]]
) -> None:
    await migrate(empty_database_url)
    files[0] = (files[0][0], files[0][1] + "-- edited")
    files.append(("9999_nothing.sql", "select 1"))
    with pytest.raises(IncompatibleDatabase, match=files[0][0]):
        await migrate(empty_database_url)
    assert await applied(empty_database_url) == NAMES


async def test_a_database_of_an_earlier_unreleased_version_is_refused(empty_database_url: str) -> None:
    async with connected(empty_database_url) as connection:
        await connection.execute(
            "create table schema_migrations (name text primary key, sha256 bytea not null, applied_at timestamptz);"
            "insert into schema_migrations values ('0001_create_event_log.sql', '', now()),"
            " ('0015_create_append_group.sql', '', now())"
        )
    answer = await asyncio.to_thread(CliRunner().invoke, app, ["migrate"], env={"DATABASE_URL": empty_database_url})
    assert (answer.exit_code, answer.stdout) == (1, "")
    assert answer.stderr.startswith(
        "orders: an earlier, unreleased version of this program made the database (0001_create_event_log.sql is not one"
        " of today's migrations), and it cannot be upgraded. To start afresh, "
    )
    async with connected(empty_database_url) as connection:
        assert await connection.fetchval("select to_regclass('events')") is None


async def test_one_that_fails_leaves_nothing_of_itself_and_can_be_applied_once_mended(
    empty_database_url: str, files: list[tuple[str, str]]
) -> None:
    files.append(("9999_table.sql", "create table half (); select 1 / 0"))
    with pytest.raises(asyncpg.DivisionByZeroError):
        await migrate(empty_database_url)
    assert await applied(empty_database_url) == NAMES
    files[-1] = ("9999_table.sql", "create table half ()")
    assert await migrate(empty_database_url) == ["9999_table.sql"]


async def test_a_newer_one_of_another_program_does_not_disturb(
    empty_database_url: str, files: list[tuple[str, str]]
) -> None:
    """While a new version is rolled out, old processes meet a database that is ahead of them."""
    await migrate(empty_database_url)
    files.pop()
    assert await migrate(empty_database_url) == []


class TestBehindALock:
    @pytest.fixture(autouse=True)
    def _soon(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(migrations, "LOCK_SECONDS", 0.2)

    async def migrate_in_words(self, url: str) -> str:
        answer = await asyncio.to_thread(CliRunner().invoke, app, ["migrate"], env={"DATABASE_URL": url})
        assert (answer.exit_code, answer.stdout) == (1, "")
        return answer.stderr

    @pytest.mark.promise("security", "`orders migrate` does not wait for long, and names the session that holds a lock")
    async def test_of_another_migrator_it_gives_up_and_names_the_session(self, empty_database_url: str) -> None:
        async with connected(empty_database_url) as holder:
            await holder.execute(f"select pg_advisory_lock({migrations._LOCK})")
            said = await self.migrate_in_words(empty_database_url)
            assert f"pid {holder.get_server_pid()} (orders, no name)" in said
            assert "pg_terminate_backend" in said

    async def test_of_an_open_transaction_it_gives_up_and_names_the_session(self, empty_database_url: str) -> None:
        await migrate(empty_database_url)
        async with connected(empty_database_url) as holder, holder.transaction():
            await holder.execute("lock table schema_migrations")
            said = await self.migrate_in_words(empty_database_url)
            assert f"pid {holder.get_server_pid()} (orders, no name)" in said
        assert await migrate(empty_database_url) == []
