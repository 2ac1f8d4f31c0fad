"""Snapshots bound what a load reads, and are never trusted more than the log."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import httpx
import pytest
import structlog
from typer.testing import CliRunner

from cli.main import app as orders
from cli.stack.embedded_server import free_port
from command_service.app import create_app
from shared.aggregates.order import ORDER
from shared.eventstore import log as event_log
from shared.eventstore import snapshot_rows
from shared.eventstore.append_request import AppendRequest, NewEvent
from shared.eventstore.snapshots import LoadedState, SnapshotPolicy, Snapshots, compact
from shared.eventstore.store import PostgresEventStore
from shared.settings import Settings
from tests.orders import place
from tests.roles import url_of
from tests.running import eventually, free_ports, running_app, running_command_service

NOW = datetime(2026, 1, 31, tzinfo=UTC)


class TestAStateIsKept:
    def test_every_so_many_events(self) -> None:
        policy = SnapshotPolicy(every_events=10)
        assert not policy.is_due(LoadedState(version=9), 1, NOW)
        assert policy.is_due(LoadedState(version=10), 1, NOW)
        assert not policy.is_due(LoadedState(version=19, snapshot_version=10), 1, NOW)

    def test_after_a_command_of_many_events(self) -> None:
        policy = SnapshotPolicy(every_events=0, command_events=5)
        assert not policy.is_due(LoadedState(version=4), 4, NOW)
        assert policy.is_due(LoadedState(version=5), 5, NOW)

    def test_when_the_last_one_is_old(self) -> None:
        policy = SnapshotPolicy(every_events=0, max_age=timedelta(hours=1))
        kept = LoadedState(version=3, snapshot_version=2, snapshot_taken_at=NOW)
        assert not policy.is_due(kept, 1, NOW + timedelta(minutes=59))
        assert policy.is_due(kept, 1, NOW + timedelta(hours=1))

    def test_never_when_nothing_changed_since(self) -> None:
        policy = SnapshotPolicy(every_events=1, max_age=timedelta(seconds=1), command_events=1)
        unchanged = LoadedState(version=3, snapshot_version=3, snapshot_taken_at=NOW)
        assert not policy.is_due(unchanged, 0, NOW + timedelta(days=1))


async def _change_address(client: httpx.AsyncClient, order_id: str, times: int) -> None:
    for number in range(times):
        body = {"shipping_address_id": f"address-{number}"}
        answer = await client.put(f"/orders/{order_id}/shipping-address", json=body)
        assert answer.status_code == 200


async def _order_of(client: httpx.AsyncClient, events: int, name: str) -> str:
    await place(client, order_id=name)
    await _change_address(client, name, events - 1)
    return f"order-{name}"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"snapshot_every_events": 20})


KEY = "the tests' key of snapshots"


def _snapshots(connection: asyncpg.Connection[asyncpg.Record], key: str = KEY) -> Snapshots:
    return Snapshots(PostgresEventStore(connection), key.encode())


async def _snapshot(connection: asyncpg.Connection[asyncpg.Record], stream_id: str) -> snapshot_rows.Snapshot | None:
    return (await snapshot_rows.load_stream(connection, stream_id, _snapshots(connection).fingerprint(ORDER)))[0]


async def _has_snapshot_of(connection: asyncpg.Connection[asyncpg.Record], stream_id: str, version: int) -> bool:
    snapshot = await _snapshot(connection, stream_id)
    return snapshot is not None and snapshot.version == version


async def test_a_long_life_leaves_a_snapshot_and_a_short_tail(
    commands: httpx.AsyncClient, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    stream_id = await _order_of(commands, 50, "long")
    await eventually(lambda: _has_snapshot_of(connection, stream_id, 40))
    snapshot, tail = await snapshot_rows.load_stream(connection, stream_id, _snapshots(connection).fingerprint(ORDER))
    assert snapshot is not None
    assert snapshot.version == 40
    assert [stored.version for stored in tail] == list(range(41, 51))


async def test_a_load_from_a_snapshot_equals_the_fold_of_the_whole_stream(
    commands: httpx.AsyncClient, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    stream_id = await _order_of(commands, 45, "equal")
    await eventually(lambda: _snapshot(connection, stream_id))
    from_snapshot = await _snapshots(connection).load(ORDER, stream_id)
    await connection.execute("delete from snapshots")
    from_start = await _snapshots(connection).load(ORDER, stream_id)
    assert from_snapshot.state == from_start.state
    assert (from_snapshot.version, from_snapshot.position) == (from_start.version, from_start.position)
    assert from_snapshot.last_occurred_at == from_start.last_occurred_at


async def test_a_restarted_service_goes_on_from_the_snapshot(
    commands: httpx.AsyncClient, connection: asyncpg.Connection[asyncpg.Record], settings: Settings
) -> None:
    stream_id = await _order_of(commands, 25, "restart")
    await eventually(lambda: _snapshot(connection, stream_id))
    (port,) = free_ports(1)
    async with running_app(create_app(settings), port) as url, httpx.AsyncClient(base_url=url) as other:
        answer = await other.put("/orders/restart/shipping-address", json={"shipping_address_id": "elsewhere"})
    assert answer.json()["version"] == 26


async def test_a_snapshot_of_another_shape_is_not_read(
    commands: httpx.AsyncClient, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    stream_id = await _order_of(commands, 30, "shape")
    await eventually(lambda: _snapshot(connection, stream_id))
    await connection.execute("update snapshots set fingerprint = sha256('another shape'), state = '{\"old\": true}'")
    loaded = await _snapshots(connection).load(ORDER, stream_id)
    assert (loaded.version, loaded.snapshot_version) == (30, 0)


async def test_a_snapshot_that_cannot_be_read_is_passed_over(
    commands: httpx.AsyncClient, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    stream_id = await _order_of(commands, 30, "broken")
    await eventually(lambda: _snapshot(connection, stream_id))
    snapshots = _snapshots(connection)
    row = (stream_id, snapshots.fingerprint(ORDER), 25, 25, NOW, '{"status": "NO SUCH"}')
    await PostgresEventStore(connection).save_snapshot(*row, snapshots._mac(*row))
    with structlog.testing.capture_logs() as logged:
        loaded = await snapshots.load(ORDER, stream_id)
    assert (loaded.version, loaded.snapshot_version) == (30, 0)
    assert [entry["event"] for entry in logged] == ["snapshot skipped"]


async def test_an_older_state_never_replaces_a_later_one(
    commands: httpx.AsyncClient, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    stream_id = await _order_of(commands, 20, "later")
    await eventually(lambda: _snapshot(connection, stream_id))
    snapshots = _snapshots(connection)
    loaded = await snapshots.load(ORDER, stream_id)
    await snapshots.save(ORDER, stream_id, LoadedState(loaded.state, 5, 5, loaded.last_occurred_at))
    kept = await _snapshot(connection, stream_id)
    assert kept is not None
    assert kept.version == 20


@pytest.mark.bound("command", "states that the compactor folds")
async def test_the_compactor_keeps_every_stream_that_grew_and_only_once(
    commands: httpx.AsyncClient, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    for name in ("one", "two"):
        await _order_of(commands, 15, name)
    await _order_of(commands, 3, "short")
    assert await compact(connection, _snapshots(connection), 10, slice_events=7) == 2
    assert await compact(connection, _snapshots(connection), 10) == 0
    assert await compact(connection, _snapshots(connection), 10, from_start=True) == 0
    await _change_address(commands, "one", 4)
    assert await compact(connection, _snapshots(connection), 4) == 1


async def test_the_compactor_deletes_old_snapshots_of_other_shapes_and_leaves_those_of_other_categories(
    commands: httpx.AsyncClient, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await _order_of(commands, 15, "of-today")
    for stream_id in ("order-of-before", "order-of-late", "cart-order-1", "orders-1"):
        age = timedelta(days=1 if stream_id == "order-of-late" else 31)
        await connection.execute(
            "insert into snapshots values ($1, 'another shape', 1, 1, now(), now() - $2::interval, '{}', sha256(''))",
            stream_id,
            age,
        )
    await compact(connection, _snapshots(connection), 10)
    left = [row["stream_id"] for row in await connection.fetch("select stream_id from snapshots order by stream_id")]
    assert left == ["cart-order-1", "order-of-late", "order-of-today", "orders-1"]


@asynccontextmanager
async def _compacting(settings: Settings) -> AsyncIterator[None]:
    """A command service that compacts."""
    changes = {"snapshot_every_events": 10, "compact_interval_seconds": 0.05, "command_port": free_port()}
    async with running_command_service(settings.model_copy(update=changes)):
        yield


async def test_the_command_service_compacts_in_the_background(
    commands: httpx.AsyncClient, connection: asyncpg.Connection[asyncpg.Record], settings: Settings
) -> None:
    await _order_of(commands, 15, "background")
    async with _compacting(settings):
        await eventually(lambda: _snapshot(connection, "order-background"))


async def test_without_a_key_no_snapshot_is_read_or_saved(
    commands: httpx.AsyncClient, connection: asyncpg.Connection[asyncpg.Record], settings: Settings
) -> None:
    await _order_of(commands, 15, "keyless")
    await compact(connection, _snapshots(connection), 10)
    loaded = await Snapshots(PostgresEventStore(connection), None).load(ORDER, "order-keyless")
    assert (loaded.version, loaded.snapshot_version) == (15, 0)
    assert SnapshotPolicy.of(settings.model_copy(update={"snapshot_key": None})) == SnapshotPolicy(every_events=0)


async def test_after_a_change_of_the_key_snapshots_are_saved_anew(
    commands: httpx.AsyncClient, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await _order_of(commands, 15, "rotated")
    await compact(connection, _snapshots(connection), 10)
    changed = _snapshots(connection, "another key of snapshots")
    assert (await changed.load(ORDER, "order-rotated")).snapshot_version == 0
    assert await compact(connection, changed, 10, from_start=True) == 1
    assert (await changed.load(ORDER, "order-rotated")).snapshot_version == 15


async def _stream_that_cannot_be_read(connection: asyncpg.Connection[asyncpg.Record], stream_id: str) -> None:
    events = [NewEvent(uuid4(), "OrderGiftWrapped", 1, "{}", "{}", NOW) for _ in range(15)]
    await event_log.append_group(connection, [AppendRequest.of_stream(stream_id, 0, uuid4(), events)])


async def test_the_compactor_skips_a_stream_that_it_cannot_read(
    commands: httpx.AsyncClient, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    for stream_id in ("order-newer", "parcel-1"):
        await _stream_that_cannot_be_read(connection, stream_id)
    await _order_of(commands, 15, "readable")
    with structlog.testing.capture_logs() as logged:
        assert await compact(connection, _snapshots(connection), 10) == 1
    assert [(entry["event"], entry["stream_id"]) for entry in logged] == [("stream not compacted", "order-newer")]
    assert await snapshot_rows.compacted_position(connection) == (await event_log.read_head(connection)).position


async def test_the_compactor_goes_on_after_a_refusal_of_postgresql(
    commands: httpx.AsyncClient, connection: asyncpg.Connection[asyncpg.Record], settings: Settings
) -> None:
    await _order_of(commands, 15, "refused")
    await connection.execute("revoke select on snapshots from orders_command")
    with structlog.testing.capture_logs() as logged:
        async with _compacting(settings):
            await eventually(lambda: "compaction failed" in [entry["event"] for entry in logged])
            await connection.execute("grant select on snapshots to orders_command")
            await eventually(lambda: _snapshot(connection, "order-refused"))


async def test_the_command_line_compacts_once(
    commands: httpx.AsyncClient,
    connection: asyncpg.Connection[asyncpg.Record],
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    await _order_of(commands, 15, "by-hand")
    monkeypatch.setenv("DATABASE_URL", url_of(database_url, "orders_command"))
    monkeypatch.setenv("SNAPSHOT_KEY", KEY)
    command = ["snapshots", "compact", "--every", "10"]
    said = [(await asyncio.to_thread(CliRunner().invoke, orders, command)).output for _ in range(2)]
    assert said == ["kept 1 snapshots\n", "kept 0 snapshots\n"]
    assert await _snapshot(connection, "order-by-hand") is not None
