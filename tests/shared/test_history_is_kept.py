"""The log is append-only, even for its owner. What each role may do is in `test_roles.py`."""

from __future__ import annotations

from datetime import timedelta
from typing import TypeAlias

import asyncpg
import pytest

from shared.eventstore import idempotency_keys
from shared.eventstore import log as event_log
from tests.shared.test_event_store import append, whole_log

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

REWRITES = [
    "update events set data = '{}'",
    "update events set position = position + 1000",
    "delete from events",
    "delete from events where position = 1",
    "truncate events",
    "truncate events, idempotency_keys cascade",
    "insert into events select * from events on conflict (position) do update set data = '{}'",
    "merge into events e using log_head h on true when matched then delete",
    "with gone as (delete from events returning 1) select count(*) from gone",
]


@pytest.mark.promise("event-log", "No role can rewrite history, not even the owner of the tables")
@pytest.mark.parametrize("replication_role", ["origin", "replica"])
async def test_not_even_the_owner_rewrites_history(connection: Connection, replication_role: str) -> None:
    await event_log.append_group(connection, [append("order-1", events=2)])
    before = await whole_log(connection)
    await connection.execute(f"set session_replication_role = {replication_role}")
    for statement in REWRITES:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match=r"append-only: (UPDATE|DELETE|TRUNCATE) refused"):
            await connection.execute(statement)
        assert await whole_log(connection) == before, statement


async def test_a_planted_function_or_table_does_not_change_what_the_append_does(connection: Connection) -> None:
    """`append_group` runs with its owner's rights: nothing of the caller's search path may get into it."""
    await connection.execute("create schema planted")
    await connection.execute("create table planted.events (like public.events)")
    await connection.execute("create table planted.log_head (like public.log_head)")
    await connection.execute(
        "create function planted.sha256(bytea) returns bytea language sql as $$ select '\\x00'::bytea $$"
    )
    await connection.execute("set search_path = planted, pg_temp, pg_catalog, public")
    [result] = await event_log.append_group(connection, [append("order-1")])
    await idempotency_keys.purge_keys(connection, timedelta(0))
    assert result.position == 1
    assert await connection.fetchval("select count(*) from planted.events") == 0
    assert len(await connection.fetchval("select hash from public.events")) == 32
