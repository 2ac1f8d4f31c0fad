"""What a program does with the stolen credentials of one database role, and what it does not get."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import httpx
import pytest
import structlog

from cli.stack.embedded_postgres import EmbeddedPostgres
from shared.eventstore import idempotency_keys
from shared.eventstore import log as event_log
from shared.eventstore.append_request import AppendRequest, NewEvent
from shared.eventstore.lease import try_acquire
from shared.eventstore.snapshots import Snapshots, compact
from shared.eventstore.store import PostgresEventStore
from shared.eventstore.subscription import open_session
from shared.migrations import migrate
from shared.read_models.keys import lease_name
from shared.settings import Settings
from tests.orders import order_body, place
from tests.roles import PASSWORDS, ROLES, Role, settings_of, url_of
from tests.running import running_command_service

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

APPLICATION: tuple[Role, ...] = ("orders_command", "orders_projector", "orders_query", "orders_auditor")
READERS: tuple[Role, ...] = ("orders_query", "orders_auditor")
FORBIDDEN = asyncpg.InsufficientPrivilegeError


async def as_role(database_url: str, role: Role) -> Connection:
    connection = await asyncpg.connect(url_of(database_url, role))
    await connection.execute("set default_transaction_read_only = off; set statement_timeout = 0")
    return connection


class TestASnapshot:
    """Commands are decided on it."""

    @pytest.fixture
    async def order(self, settings: Settings, connection: Connection) -> AsyncIterator[httpx.AsyncClient]:
        """A service that has to load an order of which there is a snapshot; it costs 3,499."""
        async with (
            running_command_service(settings) as url,
            httpx.AsyncClient(base_url=url, timeout=30) as client,
        ):
            await place(client, order_id="costly")
        assert settings.snapshot_key is not None
        snapshots = Snapshots(PostgresEventStore(connection), settings.snapshot_key.get_secret_value().encode())
        assert await compact(connection, snapshots, 1) == 1
        async with (
            running_command_service(settings) as url,
            httpx.AsyncClient(base_url=url, timeout=30) as client,
        ):
            yield client

    @pytest.mark.parametrize("role", ["orders_projector", *READERS])
    async def test_cannot_be_saved_changed_or_deleted_by_another_role(
        self, order: httpx.AsyncClient, database_url: str, role: Role
    ) -> None:
        del order
        thief = await as_role(database_url, role)
        for statement in (
            "update snapshots set state = state",
            "select save_snapshot('order-costly', sha256(''), 1, 1, now(), '{}', sha256(''))",
            "select delete_stale_snapshots('order', sha256(''), '0')",
            "select finish_compaction(1)",
        ):
            with pytest.raises(FORBIDDEN):
                await thief.execute(statement)
        await thief.close()

    @pytest.mark.promise("security", "A forged snapshot changes no decision, whichever database role wrote it")
    async def test_forged_in_the_table_changes_no_decision(
        self, order: httpx.AsyncClient, connection: Connection
    ) -> None:
        """With the rights of the owner, but without the key."""
        forged = await connection.execute(
            "update snapshots set state = replace(replace(state::text, '450', '1'), '2599', '1')::json"
        )
        assert forged == "UPDATE 1"
        with structlog.testing.capture_logs() as logged:
            answer = await order.post("/orders/costly/payment", json={"payment_reference": "p", "amount": 3})
        assert (answer.status_code, answer.json()["code"]) == (409, "payment-amount-mismatch")
        assert [line["stream_id"] for line in logged if line["event"] == "snapshot refused"] == ["order-costly"]

    async def test_of_another_order_changes_no_decision(
        self, order: httpx.AsyncClient, connection: Connection, settings: Settings
    ) -> None:
        """The state of a cheap order, with its own authentication, under the name of the costly one."""
        await place(order, order_id="cheap", items=[{"product_id": "p", "quantity": 1, "unit_price": 1}])
        assert settings.snapshot_key is not None
        key = settings.snapshot_key.get_secret_value().encode()
        assert await compact(connection, Snapshots(PostgresEventStore(connection), key), 1) == 1
        await connection.execute(
            "update snapshots set (state, mac) = (select state, mac from snapshots where stream_id = 'order-cheap')"
            " where stream_id = 'order-costly'"
        )
        answer = await order.post("/orders/costly/payment", json={"payment_reference": "p", "amount": 1})
        assert (answer.status_code, answer.json()["code"]) == (409, "payment-amount-mismatch")


LOCKS = [
    f"select pg_{attempt}advisory_{scope}lock{mode}({key})"
    for attempt in ("", "try_")
    for scope in ("", "xact_")
    for mode in ("", "_shared")
    for key in ("1", "1, 2")
]
WRITES = [
    "select lo_create(0)",
    "select lo_from_bytea(0, 'loot')",
    "select lo_creat(-1)",
    "select lo_put(1, 0, 'loot')",
    "select lo_unlink(1)",
    "select lo_open(1, 131072)",
    "select loread(0, 1)",
    "select lowrite(0, 'loot')",
    "select pg_logical_emit_message(false, 'loot', 'loot')",
    "create temporary table loot (bytes text)",
    "select nextval('projector_epochs')",
    "do $$ begin lock table events in row exclusive mode; end $$",
    "select * from log_head for update",
    "alter system set work_mem = '1GB'",
    "set temp_file_limit = -1",
]


class TestAReader:
    @pytest.mark.parametrize("role", READERS)
    @pytest.mark.promise(
        "security", "With its read-only default turned off, the auditor's role still writes and locks nothing"
    )
    async def test_writes_and_locks_nothing_with_its_read_only_default_turned_off(
        self, database_url: str, role: Role
    ) -> None:
        thief = await as_role(database_url, role)
        possible = []
        for statement in LOCKS + WRITES:
            try:
                await thief.execute(statement)
                possible.append(statement)
            except FORBIDDEN:
                pass
        await thief.close()
        assert possible == []

    async def test_does_not_end_sessions_of_the_query_service(self, database_url: str) -> None:
        service, thief = [await as_role(database_url, role) for role in READERS]
        with pytest.raises(FORBIDDEN):
            await thief.fetchval("select pg_terminate_backend($1)", service.get_server_pid())
        assert await service.fetchval("select 1") == 1
        for connection in (service, thief):
            await connection.close()

    async def test_does_not_keep_projectors_from_their_leases(self, settings: Settings, database_url: str) -> None:
        thief = await as_role(database_url, "orders_auditor")
        with pytest.raises(FORBIDDEN):
            await thief.execute("select pg_advisory_lock(hashtextextended($1, 0))", lease_name("orders", 1, 0))
        async with open_session(settings_of(settings, "orders_projector"), lambda: None) as session:
            assert await try_acquire(session, lease_name("orders", 1, 0))
        await thief.close()

    async def test_with_all_connections_that_it_gets_stops_no_other_role(self, database_url: str) -> None:
        opened = [await asyncpg.connect(url_of(database_url, "orders_auditor")) for _ in range(10)]
        with pytest.raises(asyncpg.TooManyConnectionsError):
            await asyncpg.connect(url_of(database_url, "orders_auditor"))
        for role in APPLICATION[:-1]:
            connection = await asyncpg.connect(url_of(database_url, role))
            assert await event_log.read_head(connection)
            await connection.close()
        for connection in opened:
            await connection.close()


@pytest.mark.parametrize("role", APPLICATION)
async def test_a_session_that_sets_nothing_is_bounded_in_time(database_url: str, role: Role) -> None:
    connection = await asyncpg.connect(url_of(database_url, role))
    for setting in ("statement_timeout", "idle_in_transaction_session_timeout"):
        assert await connection.fetchval(f"select current_setting('{setting}')::interval between '1 s' and '5 min'")
    await connection.close()


@pytest.mark.subprocess
async def test_no_role_connects_to_another_database_of_a_server_of_ours(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "postgres", flush_initial_files=False) as server:
        await migrate(server.url, PASSWORDS)
        for role in ROLES:
            await (await asyncpg.connect(url_of(server.url, role))).close()
            for database in ("postgres", "template1"):
                elsewhere = urlsplit(url_of(server.url, role))._replace(path=f"/{database}").geturl()
                with pytest.raises(FORBIDDEN):
                    await asyncpg.connect(elsewhere)


@pytest.mark.subprocess
async def test_where_other_databases_accept_the_roles_the_operator_is_told(tmp_path: Path) -> None:
    with EmbeddedPostgres(tmp_path / "postgres", flush_initial_files=False) as server:
        owner = await asyncpg.connect(server.url)
        await owner.execute("create database another_program")
        warnings: list[str] = []
        await migrate(server.url, PASSWORDS, warnings.append)
        [warning] = warnings
        assert "another_program" in warning
        await owner.close()


def event(**changes: Any) -> NewEvent:
    fine = NewEvent(uuid4(), "OrderPlaced", 2, "{}", "{}", datetime.now(UTC))
    return fine._replace(**changes)


NOW = datetime.now(UTC)
MALFORMED = {
    "a stream without a category": ("1", event()),
    "a stream without an id": ("order-", event()),
    "a stream of a category in capitals": ("Order-1", event()),
    "a stream with a line break": ("order-1\n2", event()),
    "a stream of another alphabet": ("order-é", event()),
    "a long name of a stream": ("order-" + "1" * 195, event()),
    "a type that is no name": ("order-1", event(event_type="drop table")),
    "a long type": ("order-1", event(event_type="A" * 65)),
    "version 0 of a type": ("order-1", event(schema_version=0)),
    "version 1,001 of a type": ("order-1", event(schema_version=1_001)),
    "the year 9000": ("order-1", event(occurred_at=NOW.replace(year=9000))),
    "the day after tomorrow": ("order-1", event(occurred_at=NOW + timedelta(hours=25))),
    "the end of time": ("order-1", event(occurred_at=datetime.max.replace(tzinfo=UTC))),
    "the beginning of time": ("order-1", event(occurred_at=datetime.min.replace(tzinfo=UTC))),
    "no type": ("order-1", event(event_type="")),
    "data of more than 4 MiB": ("order-1", event(data='{"a":"' + "a" * 4_194_304 + '"}')),
    "metadata of more than 64 KiB": ("order-1", event(metadata='{"a":"' + "a" * 65_536 + '"}')),
}


class TestTheCommandRole:
    @pytest.mark.parametrize("what", MALFORMED)
    @pytest.mark.promise("security", "The append function refuses malformed names, times and sizes")
    async def test_appends_nothing_malformed(self, database_url: str, connection: Connection, what: str) -> None:
        stream_id, malformed = MALFORMED[what]
        thief = await as_role(database_url, "orders_command")
        with pytest.raises((asyncpg.CheckViolationError, asyncpg.DatetimeFieldOverflowError)):
            await event_log.append_group(thief, [AppendRequest.of_stream(stream_id, 0, uuid4(), [malformed])])
        await thief.close()
        assert (await event_log.read_head(connection)).position == 0

    async def test_appends_what_lies_within_the_bounds(self, database_url: str) -> None:
        connection = await as_role(database_url, "orders_command")
        largest = '{"a":"' + "a" * (4_194_304 - 8) + '"}'
        for stream_id, fine in {
            "o" * 71 + "-" + "~" * 128: event(data=largest, metadata='{"a":"' + "a" * (65_536 - 8) + '"}'),
            "a_1- ": event(occurred_at=datetime(1, 1, 2, tzinfo=UTC), schema_version=1_000),
            "order--": event(occurred_at=datetime.now(UTC) + timedelta(hours=23)),
        }.items():
            await event_log.append_group(connection, [AppendRequest.of_stream(stream_id, 0, uuid4(), [fine])])
        assert (await event_log.read_head(connection)).position == 3
        await connection.close()

    async def test_purges_no_idempotency_key_that_is_younger_than_a_day(
        self, commands: httpx.AsyncClient, database_url: str
    ) -> None:
        answer = await commands.post("/orders", json=order_body(), headers={"Idempotency-Key": "mine"})
        assert answer.status_code == 201
        thief = await as_role(database_url, "orders_command")
        for age in (timedelta(0), timedelta(days=-1_000)):
            assert await idempotency_keys.purge_keys(thief, age) == 0
        await thief.close()
