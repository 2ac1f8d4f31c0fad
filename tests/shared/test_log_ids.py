"""Giving the log a new id: what it does, which role may, and that it stays on record."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest
from typer.testing import CliRunner, Result

from cli.main import app
from shared.eventstore import log as event_log
from tests.roles import Role, url_of
from tests.shared.test_event_store import append

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


async def new_id(url: str, reason: str = "the disk failed") -> Result:
    """`orders log new-id`."""
    return await asyncio.to_thread(
        CliRunner().invoke, app, ["log", "new-id", "--reason", reason], env={"DATABASE_URL": url}
    )


async def head_of(connection: Connection) -> asyncpg.Record:
    row = await connection.fetchrow("select * from log_head")
    assert row is not None
    return row


async def test_the_log_continues_under_the_new_id_and_records_the_old_one(
    connection: Connection, database_url: str
) -> None:
    await event_log.append_group(connection, [append("order-1", events=3)])
    before = await head_of(connection)
    answer = await new_id(url_of(database_url, "orders_migrator"))
    after = await head_of(connection)
    assert answer.exit_code == 0, answer.output
    assert answer.output == f"old id    {before['log_id']}\nnew id    {after['log_id']}\nposition  3\n"
    assert after["log_id"] != before["log_id"]
    assert tuple(after)[2:] == tuple(before)[2:]
    [result] = await event_log.append_group(connection, [append("order-2")])
    assert (result.position, result.log_id) == (4, after["log_id"])
    [row] = await connection.fetch("select log_id, replaces, position, reason from log_ids")
    assert tuple(row) == (after["log_id"], before["log_id"], 3, "the disk failed")


async def test_twice_gives_two_ids(connection: Connection, database_url: str) -> None:
    for _ in range(2):
        assert (await new_id(database_url)).exit_code == 0
    [one, two] = await connection.fetch("select number, log_id, replaces from log_ids order by number")
    assert (one["number"], two["number"], two["replaces"]) == (1, 2, one["log_id"])


@pytest.mark.parametrize("role", ["orders_command", "orders_projector", "orders_auditor"])
async def test_only_the_owner_may(connection: Connection, database_url: str, role: Role) -> None:
    before = await head_of(connection)
    answer = await new_id(url_of(database_url, role))
    assert (answer.exit_code, answer.output) == (1, "orders: permission denied for function give_new_log_id\n")
    intruder = await asyncpg.connect(url_of(database_url, role))
    await intruder.execute("set default_transaction_read_only = off")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await intruder.execute("insert into log_ids values (1, gen_random_uuid(), gen_random_uuid(), 0, now(), 'x')")
    await intruder.close()
    assert await head_of(connection) == before


async def test_not_even_the_owner_deletes_an_id(connection: Connection, database_url: str) -> None:
    await new_id(database_url)
    for statement in ("update log_ids set reason = 'another'", "delete from log_ids", "truncate log_ids"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await connection.execute(statement)


@pytest.mark.parametrize("reason", ["", "two\nlines", "x" * 501, "\x1b[2J"])
async def test_the_reason_is_one_line_of_bounded_length(connection: Connection, database_url: str, reason: str) -> None:
    assert (await new_id(database_url, reason)).output == "orders: the reason must be one line of 1 to 500 characters\n"
    with pytest.raises(asyncpg.CheckViolationError):
        await connection.execute("select give_new_log_id($1)", reason)


async def test_without_a_database_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DATABASE_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    command = ["log", "new-id", "--reason", "x"]
    answer = await asyncio.to_thread(CliRunner().invoke, app, command)
    assert answer.exit_code == 1
    assert answer.output.startswith("orders: no database: ")


async def test_appends_under_way_come_first_and_those_that_wait_meet_the_new_id(
    connection: Connection, database_url: str
) -> None:
    current = (await event_log.read_head(connection)).log_id
    other = await asyncpg.connect(database_url)
    async with connection.transaction():
        [first] = await event_log.append_group(connection, [append("order-1")])
        giving = asyncio.create_task(other.fetchrow("select * from give_new_log_id('x')"))
        await _until_waiting(connection)
    given = await giving
    assert given is not None
    assert (first.log_id, tuple(given)[::2]) == (current, (current, 1))
    await other.close()


async def _until_waiting(connection: Connection) -> None:
    waiting = "select from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    while not await connection.fetchval(f"select exists ({waiting})"):
        await connection.execute("select pg_stat_clear_snapshot()")  # within a transaction it would not change
