"""A backup and its restore, as docs/operations.md describes them."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import asyncpg
import httpx
import pytest

from cli.backups import backup as backup_module
from cli.backups.backup import back_up
from cli.backups.manifest import CATALOGUE, BackupFailed, file_of
from cli.backups.restore import restore
from cli.stack.embedded_postgres import EmbeddedPostgres
from shared.aggregates.customer import CustomerErased, ErasureReason
from shared.aggregates.order import OrderLine
from shared.eventstore import log as event_log
from tests.audit.evidence import verify_log
from tests.catalogue import LANTERN, review
from tests.orders import new_order_id, paid, placed
from tests.orders_command import invoke_orders
from tests.recording import Recorder, put_in_log
from tests.roles import url_of
from tests.running import fresh_database
from tests.stack.conftest import StartUp

# What is folded from the log, or written by `orders migrate`; every other table has to be in a backup.
DERIVED = {
    "schema_migrations",
    "snapshots",
    "snapshot_compaction",
    "reservation_expiry",
    "process_progress",
    "process_waiting",
    "read_models",
    "read_model_generations",
    "read_model_documents",
    "read_model_parked",
    "read_model_heartbeats",
    "projection_progress",
    "revenue_by_day",
}
_TABLES = "select relname from pg_class where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace"
_ADD_KEY = """
insert into idempotency_keys
select 'key', hash, event_id, stream_id, version, position, recorded_at from events where position = 3
"""
# Of a customer who was erased and registered anew, as the events below have it.
_ADD_SUBJECT_KEYS = """
insert into subject_keys values
    ('a key of person1', 'customer-1', 1, null, null, 22, '2026-01-02T00:00:00Z'),
    ('a key of person2', 'customer-1', 2, '\\x22', 'a key-encryption', null, null)
"""
BACKED_UP = {"events", "log_head", "log_ids", "idempotency_keys", "subject_keys", "catalogue_head", *CATALOGUE}


async def test_every_table_is_in_a_backup_or_derived(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    assert {row["relname"] for row in await connection.fetch(_TABLES)} == DERIVED | BACKED_UP


@dataclass(frozen=True)
class Copy:
    """A backup of a log of `events` events, and an empty database."""

    directory: Path
    events: int
    empty_url: str


@pytest.fixture
async def copy(
    recorder: Recorder, database_url: str, postgres: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Copy]:
    """Of a log that had another id before, read in several statements."""
    monkeypatch.setattr(backup_module, "STRIDE", 7)
    for _ in range(10):
        await recorder.record(new_order_id(), placed(), paid(3_499))
    await recorder.connection.execute("select give_new_log_id('once before')")
    await recorder.record(new_order_id(), placed(OrderLine("MUG", 1, 450, 'a "mug", ünicode\\n')))
    await recorder.connection.execute(_ADD_KEY)
    await recorder.connection.execute(_ADD_SUBJECT_KEYS)
    await back_up(url_of(database_url, "orders_migrator"), tmp_path / "copy", {}, lambda _done, _total: None)
    async with fresh_database(postgres.url) as empty_url:
        yield Copy(tmp_path / "copy", 21, empty_url)


async def rows(url: str, table: str) -> list[tuple[object, ...]]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(f"select t::text from {table} t order by position")]
    finally:
        await connection.close()


@pytest.mark.promise("command-line", "A restored backup has every event, hash and Idempotency-Key, under a new log id")
async def test_what_is_restored_is_what_was_backed_up(copy: Copy, database_url: str) -> None:
    restored = await restore(url_of(copy.empty_url, "orders_migrator"), copy.directory, "the disk failed")

    for table in ("events", "idempotency_keys"):
        assert await rows(copy.empty_url, table) == await rows(database_url, table)
    assert (await rows(copy.empty_url, "log_ids"))[:-1] == await rows(database_url, "log_ids")
    before, after = await rows(database_url, "log_head"), await rows(copy.empty_url, "log_head")
    assert str(restored.old_id) in str(before)
    assert str(after) == str(before).replace(str(restored.old_id), str(restored.new_id))
    assert restored.position == copy.events
    verified = await asyncio.to_thread(invoke_orders, "audit", "verify", "--database-url", copy.empty_url)
    assert verified.returncode == 0, verified.stdout
    assert "the disk failed" in verified.stdout


@pytest.mark.promise("command-line", "A restored backup has the catalogue, and its feed of changes under a new id")
async def test_the_catalogue_is_restored_with_the_log(
    commands: httpx.AsyncClient, recorder: Recorder, database_url: str, postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    await recorder.record(new_order_id(), placed())
    for product_id in ("LANTERN", "CANDLE"):
        body = {**LANTERN, "name": product_id}
        saved = await commands.put(f"/products/{product_id}", json=body, headers={"Idempotency-Key": product_id})
        assert saved.status_code == 201, saved.text
    await review(commands, stars=5)
    await back_up(url_of(database_url, "orders_migrator"), tmp_path / "copy", {}, lambda _done, _total: None)
    async with fresh_database(postgres.url) as empty_url:
        await restore(url_of(empty_url, "orders_migrator"), tmp_path / "copy", "the disk failed")
        connection, restored = await asyncpg.connect(database_url), await asyncpg.connect(empty_url)
        for table in (*CATALOGUE, "idempotency_keys"):
            query = f"select t::text from {table} t order by 1"
            assert await restored.fetch(query) == await connection.fetch(query) != []
        columns = "select position, hash, recorded_at from catalogue_head"
        assert await restored.fetch(columns) == await connection.fetch(columns)
        ids = [await one.fetchval("select log_id from catalogue_head") for one in (connection, restored)]
        assert ids[0] != ids[1]
        assert await restored.fetchval("insert into brands (name) values ('another') returning brand_id") > 1
        await connection.close()
        await restored.close()


async def test_the_event_of_an_erasure_destroys_no_key_as_it_is_restored(copy: Copy, database_url: str) -> None:
    connection = await asyncpg.connect(database_url)
    await put_in_log(connection, "customer-2", CustomerErased("2", ErasureReason.OTHER))
    await connection.execute(
        "insert into subject_keys values ('a key of person3', 'customer-2', 1, '1', repeat('k', 16))"
    )
    before = await connection.fetch("select * from subject_keys order by key_id")
    await connection.close()
    directory = copy.directory.with_name("with-erasure")
    await back_up(database_url, directory, {}, lambda _done, _total: None)
    await restore(copy.empty_url, directory, "x")
    restored = await asyncpg.connect(copy.empty_url)
    assert await restored.fetch("select * from subject_keys order by key_id") == before
    await restored.close()


async def test_the_restored_log_goes_on(copy: Copy) -> None:
    await restore(copy.empty_url, copy.directory, "x")
    restored = await asyncpg.connect(copy.empty_url)
    await Recorder(restored).record(new_order_id(), placed())
    assert (await event_log.read_head(restored)).position == copy.events + 1
    await restored.close()


async def test_an_auditor_verifies_a_backup_without_our_code_and_without_restoring_it(copy: Copy) -> None:
    at = copy.directory
    arguments = at / "events.csv", "--head", at / "head.csv", "--ids", at / "ids.csv"
    answer = await asyncio.to_thread(verify_log, *arguments)
    assert (answer.exit_code, f"position  {copy.events}\n" in answer.output) == (0, True), answer.output


async def test_a_backup_is_for_its_owner_only(copy: Copy) -> None:
    assert stat.S_IMODE(copy.directory.stat().st_mode) == 0o700
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in copy.directory.iterdir()}
    assert modes.keys() == {
        "backup.json",
        "events.csv",
        "head.csv",
        "ids.csv",
        "idempotency_keys.csv",
        "subject_keys.csv",
        "catalogue_head.csv",
        *(file_of(table) for table in CATALOGUE),
    }
    assert set(modes.values()) == {0o600}


@pytest.mark.promise("command-line", "A damaged or incomplete backup, or one for a log with events, is not restored")
async def test_a_backup_that_was_damaged_leaves_the_database_empty(copy: Copy) -> None:
    for name in ("events.csv", "head.csv", "ids.csv", "idempotency_keys.csv", "subject_keys.csv", "backup.json"):
        file = copy.directory / name
        content = file.read_text()
        for damaged in (content.replace("2", "3"), content[:-20], None):
            file.unlink() if damaged is None else file.write_text(damaged)
            with pytest.raises(BackupFailed):
                await restore(copy.empty_url, copy.directory, "x")
        file.write_text(content)
    assert await rows(copy.empty_url, "events") == []
    assert "-infinity" in str(await rows(copy.empty_url, "log_head"))


async def test_a_log_with_events_is_not_restored_into(copy: Copy, database_url: str) -> None:
    before = await rows(database_url, "events")
    with pytest.raises(BackupFailed, match="the log of this database is not empty"):
        await restore(database_url, copy.directory, "x")
    assert await rows(database_url, "events") == before


async def test_a_backup_replaces_no_directory_and_an_empty_log_has_none(
    copy: Copy, database_url: str, tmp_path: Path
) -> None:
    with pytest.raises(BackupFailed, match="is there already"):
        await back_up(database_url, copy.directory, {}, lambda _done, _total: None)
    with pytest.raises(BackupFailed, match="the log is empty"):
        await back_up(copy.empty_url, tmp_path / "new", {}, lambda _done, _total: None)
    assert os.listdir(tmp_path) == ["copy"]  # noqa: PTH208 - no async code here is held up by a listing


def orders(*arguments: str) -> subprocess.CompletedProcess[str]:
    done = invoke_orders(*arguments)
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.subprocess
@pytest.mark.promise("command-line", "A stack is restored from its backup as docs/operations.md describes")
def test_a_stack_is_restored_from_its_backup(start_up: StartUp, tmp_path: Path) -> None:
    first = start_up(tmp_path / "first").until_ready()
    order_id, old_token = first.place_order()
    seals, key, public_key = (str(tmp_path / name) for name in ("seals.jsonl", "seal.pem", "seal.pub.pem"))
    at_first, copy = ("--data-dir", str(first.data_dir)), str(tmp_path / "copy")
    orders("audit", "keygen", "--key", key, "--public-key", public_key)
    orders("audit", "seal", "--seals", seals, "--key", key, *at_first)
    made = orders("backup", copy, "--seals", seals, "--public-key", public_key, "--key", key, "--json", *at_first)
    assert json.loads(made.stdout)["position"] == 1
    assert first.stop(signal.SIGINT) == 0

    second = start_up(tmp_path / "second").until_ready()
    at_second = "--data-dir", str(second.data_dir)
    orders("restore", copy, "--reason", "the disk failed", *at_second)

    new_order, token = second.place_order()
    assert second.order_total(order_id, token) == second.order_total(new_order, token) == 1530
    headers = {"Consistency-Token": old_token}
    refused = httpx.get(f"{second.query_url}/orders/{order_id}", headers=headers, timeout=30)
    assert (refused.status_code, refused.json()["code"]) == (400, "unknown-log")
    sealed = "--seals", f"{copy}/seals.jsonl", "--public-key", f"{copy}/seal.pub.pem"
    verified = json.loads(orders("audit", "verify", *sealed, "--json", *at_second).stdout)
    assert (verified["intact"], verified["position"]) == (True, 2)
    assert "'the disk failed'" in verified["new_ids"][0]
    orders("audit", "seal", "--seals", f"{copy}/seals.jsonl", "--key", f"{copy}/seal.pem", *at_second)
