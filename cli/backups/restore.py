"""Loads a backup into an empty, migrated database, and gives the log a new id in the same transaction."""

from __future__ import annotations

import csv
from collections.abc import AsyncIterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeAlias
from uuid import UUID

import asyncpg

from cli.backups.manifest import (
    CATALOGUE,
    CATALOGUE_HEAD,
    EVENTS,
    HEAD,
    KEYS,
    LOG_IDS,
    SUBJECT_KEYS,
    BackupFailed,
    Manifest,
    checked_chunks,
    file_of,
    load_manifest,
)
from shared.postgres import CONNECT_SECONDS, CONNECTION_LOST

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

LOCK_SECONDS = 10.0  # longer than the appends under way take

# Events first: as they are loaded, those of erasures would destroy keys.
_TABLES = {EVENTS: "events", LOG_IDS: "log_ids", KEYS: "idempotency_keys", SUBJECT_KEYS: "subject_keys"} | {
    file_of(table): table for table in CATALOGUE
}
_HEADS = {HEAD: "log_head", CATALOGUE_HEAD: "catalogue_head"}
_EMPTY = """
select h.position = 0 and not exists (select from events) and not exists (select from log_ids)
       and not exists (select from idempotency_keys) and not exists (select from catalogue_changes)
from log_head h where only_row for update
"""
_SET_HEAD = """
update {} set log_id = $1::text::uuid, position = $2::text::bigint, hash = $3::text::bytea,
              recorded_at = $4::text::timestamptz
"""
# Numbers that the rows of before have are not given again.
_ADVANCE = "select setval(pg_get_serial_sequence($1, $2), max({})) from {} having count(*) > 0"
_NUMBERED = {"brands": "brand_id", "categories": "category_id", "tags": "tag_id"}


class Restored(NamedTuple):
    """As `orders log new-id`; `position` is where the log ends."""

    old_id: UUID
    new_id: UUID
    position: int


async def restore(url: str, directory: Path, reason: str) -> Restored:
    """All of the backup or nothing. Raises BackupFailed."""
    manifest = load_manifest(directory)
    try:
        connection = await asyncpg.connect(
            url,
            timeout=CONNECT_SECONDS,
            server_settings={"application_name": "orders-restore", "datestyle": "ISO", "statement_timeout": "0"},
        )
    except (*CONNECTION_LOST, ValueError, asyncpg.PostgresError) as error:
        raise BackupFailed(f"cannot connect: {error}") from error
    try:
        async with connection.transaction():
            return await _load(connection, directory, manifest, reason)
    except asyncpg.UndefinedTableError as error:
        raise BackupFailed(f"this database has no tables for a log; run `orders migrate` first: {error}") from error
    except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
        raise BackupFailed(f"cannot restore: {error}") from error
    finally:
        with suppress(*CONNECTION_LOST, asyncpg.PostgresError):
            await connection.close(timeout=CONNECT_SECONDS)


async def _load(connection: Connection, directory: Path, manifest: Manifest, reason: str) -> Restored:
    # Holds back appends until the log is whole.
    if not await connection.fetchval(_EMPTY, timeout=LOCK_SECONDS):
        raise BackupFailed("the log of this database is not empty; a backup is restored into a new database")
    for name, table in _TABLES.items():
        await _copy(connection, directory, name, table, manifest)
    for table, column in _NUMBERED.items():
        await connection.execute(_ADVANCE.format(column, table), table, column)
    for name, table in _HEADS.items():
        head = next(csv.DictReader(b"".join(checked_chunks(directory, name, manifest)).decode().splitlines()))
        columns = [head[column] for column in ("log_id", "position", "hash", "recorded_at")]
        await connection.execute(_SET_HEAD.format(table), *columns)
    given = await connection.fetchrow("select * from give_new_log_id($1)", reason)
    assert given is not None, "the function answers with one row"
    return Restored(*given)


async def _copy(connection: Connection, directory: Path, name: str, table: str, manifest: Manifest) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for chunk in checked_chunks(directory, name, manifest):
            yield chunk

    try:
        with (directory / name).open("rb") as file:
            columns = file.readline().decode().strip().split(",")
    except OSError as error:
        raise BackupFailed(f"{directory / name}: {error.strerror}") from error
    # A column that a newer program has added takes its default.
    await connection.copy_to_table(table, source=chunks(), columns=columns, format="csv", header=True)
