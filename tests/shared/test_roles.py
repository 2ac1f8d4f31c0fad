"""No role can rewrite the log: each forbidden statement, tried as each role."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest

from shared.eventstore import idempotency_keys
from shared.eventstore import log as event_log
from shared.eventstore.append_request import AppendRequest, AppendStatus, NewEvent
from shared.postgres import connect
from shared.settings import Settings
from tests.roles import ROLES, Role, settings_of, url_of

APPLICATION: tuple[Role, ...] = ("orders_command", "orders_projector", "orders_auditor")

REWRITING = [
    "insert into events select (e).* from (select e from events e) as one",
    "update events set data = '{}'",
    "delete from events",
    "truncate events",
    "update log_head set position = 0",
    "delete from log_head",
    "insert into log_head select false, gen_random_uuid(), 0, hash, recorded_at from log_head",
    "truncate log_head",
    "alter table events disable trigger all",
    "drop trigger events_are_immutable on events",
    "drop table events cascade",
    "alter table events add column note text",
    "alter function append_group set search_path = public",
    "alter function append_group security invoker",
    "create or replace function event_hash() returns bytea language sql return null",
    "create table public.loot ()",
    "create function public.loot() returns int language sql return 1",
    "create temporary table events (position bigint)",
    "create schema loot",
    "set role orders_owner",
    "set session_replication_role = replica",
    "insert into snapshots select",
    "insert into idempotency_keys select",
    "delete from idempotency_keys",
    "update schema_migrations set name = name",
]


def _event() -> NewEvent:
    data = '{"customer_id":"a","currency":"GBP","items":[],"shipping_address_id":"h"}'
    return NewEvent(uuid4(), "OrderPlaced", 2, data, "{}", datetime.now(UTC))


@pytest.fixture
async def owner(connection: asyncpg.Connection[asyncpg.Record]) -> asyncpg.Connection[asyncpg.Record]:
    """A superuser's connection to a log of one event."""
    await event_log.append_group(connection, [AppendRequest.of_stream("order-1", 0, uuid4(), [_event()])])
    return connection


@pytest.mark.parametrize("role", APPLICATION)
async def test_no_application_role_can_rewrite_the_log(
    owner: asyncpg.Connection[asyncpg.Record], database_url: str, role: Role
) -> None:
    before = await owner.fetch("select * from events")
    intruder = await asyncpg.connect(url_of(database_url, role))
    # The auditor's transactions are read-only unless it asks otherwise; what it may do must not hang on that.
    await intruder.execute("set default_transaction_read_only = off")
    possible = []
    for statement in REWRITING:
        try:
            await intruder.execute(statement)
            possible.append(statement)
        except (asyncpg.InsufficientPrivilegeError, asyncpg.InvalidSchemaNameError):
            pass  # refused, as it should be
    await intruder.close()
    assert possible == []
    assert await owner.fetch("select * from events") == before


@pytest.mark.parametrize("role", ["orders_projector", "orders_auditor"])
async def test_only_the_command_role_may_append(
    owner: asyncpg.Connection[asyncpg.Record], database_url: str, role: Role
) -> None:
    del owner
    connection = await asyncpg.connect(url_of(database_url, role))
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await event_log.append_group(connection, [AppendRequest.of_stream("order-2", 0, uuid4(), [_event()])])
    await connection.close()


READ_MODELS = (
    "read_models",
    "read_model_generations",
    "read_model_documents",
    "read_model_heartbeats",
    "read_model_parked",
    "revenue_by_day",
)


@pytest.mark.parametrize("role", APPLICATION)
async def test_read_models_are_the_projectors_to_write_and_the_auditors_to_read(
    owner: asyncpg.Connection[asyncpg.Record], role: Role
) -> None:
    may = {
        right
        for table in READ_MODELS
        for right in ("select", "insert", "update", "delete", "truncate", "trigger", "references")
        if await owner.fetchval("select has_table_privilege($1, $2, $3)", role, table, right)
    }
    assert may == {
        "orders_command": set(),
        "orders_projector": {"select", "insert", "update", "delete"},
        "orders_auditor": {"select"},
    }.get(role)


async def test_a_search_path_of_the_callers_does_not_reach_into_the_function(
    owner: asyncpg.Connection[asyncpg.Record], settings: Settings
) -> None:
    connection = await connect(settings_of(settings, "orders_command"), "test")
    await connection.execute("set search_path = pg_temp, nowhere, public")
    [result] = await event_log.append_group(connection, [AppendRequest.of_stream("order-9", 0, uuid4(), [_event()])])
    await connection.close()
    assert result.status is AppendStatus.APPENDED
    assert await owner.fetchval("select count(*) from events") == 2


@pytest.mark.parametrize("replication_role", ["origin", "replica", "local"])
async def test_the_triggers_refuse_even_a_superuser(
    owner: asyncpg.Connection[asyncpg.Record], replication_role: str
) -> None:
    await owner.execute(f"set session_replication_role = {replication_role}")
    for statement in ("update events set data = '{}'", "delete from events", "truncate events"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="append-only"):
            await owner.execute(statement)


async def test_the_auditor_reads_everything_in_read_only_transactions(
    owner: asyncpg.Connection[asyncpg.Record], database_url: str
) -> None:
    auditor = await asyncpg.connect(url_of(database_url, "orders_auditor"))
    assert await auditor.fetchval("show default_transaction_read_only") == "on"
    assert await auditor.fetch("select * from events") == await owner.fetch("select * from events")
    assert (await event_log.read_head(auditor)).position == 1
    await auditor.close()


async def test_the_owner_cannot_log_in_and_the_migrator_acts_as_it(
    owner: asyncpg.Connection[asyncpg.Record], database_url: str
) -> None:
    assert not await owner.fetchval("select rolcanlogin from pg_roles where rolname = 'orders_owner'")
    migrator = await asyncpg.connect(url_of(database_url, "orders_migrator"))
    assert await migrator.fetchval("select current_user") == "orders_owner"
    await migrator.execute("create table later (id int)")
    assert await owner.fetchval("select tableowner from pg_tables where tablename = 'later'") == "orders_owner"
    await migrator.close()


async def test_every_object_belongs_to_the_owner_and_none_is_public(owner: asyncpg.Connection[asyncpg.Record]) -> None:
    strangers = await owner.fetch(
        "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'S', 'v')"
        " and relowner <> 'orders_owner'::regrole"
        " union all select proname from pg_proc where pronamespace = 'public'::regnamespace"
        " and proowner <> 'orders_owner'::regrole"
    )
    assert strangers == []
    public = await owner.fetch(
        "select proname from pg_proc where pronamespace = 'public'::regnamespace"
        " and (proacl is null or exists (select from aclexplode(proacl) where grantee = 0))"
    )
    assert public == []


async def test_keys_are_purged_by_the_command_role_only(
    owner: asyncpg.Connection[asyncpg.Record], database_url: str
) -> None:
    del owner
    for role in ROLES[1:]:
        connection = await asyncpg.connect(url_of(database_url, role))
        if role == "orders_command":
            assert await idempotency_keys.purge_keys(connection, timedelta(days=7)) == 0
        else:
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await idempotency_keys.purge_keys(connection, timedelta(days=7))
        await connection.close()
