"""Writes a backup: the log with its ids, the catalogue, Idempotency-Keys and wrapped keys of subjects as CSV, and the
files of seals and keys."""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO, TypeAlias
from uuid import UUID

import asyncpg
import msgspec

from cli.backups.manifest import (
    CATALOGUE,
    CATALOGUE_HEAD,
    EVENTS,
    FORMAT,
    HEAD,
    KEYS,
    LOG_IDS,
    MANIFEST,
    SUBJECT_KEYS,
    BackupFailed,
    FileSum,
    Manifest,
    file_of,
)
from shared.files import sync_directory
from shared.postgres import CONNECT_SECONDS, CONNECTION_LOST

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
Progress: TypeAlias = Callable[[int, int], object]  # events written, events in all

_CHUNK = 1 << 18  # bytes
STRIDE = 100_000  # positions read with one statement: one snapshot for all would hold up the vacuum of the log's head

# As `tools/verify_log.py` reads them.
_AS_TEXT = {"datestyle": "ISO", "bytea_output": "hex", "timezone": "UTC", "statement_timeout": "0"}
_COLUMNS = """
select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute
where attrelid = $1::text::regclass and attnum > 0 and not attisdropped and attgenerated = ''
"""


async def back_up(url: str, directory: Path, files: Mapping[str, Path], progress: Progress) -> Manifest:
    """Makes `directory`, with the log and copies of `files` by their names there; the whole of it or nothing.

    Events that are appended meanwhile may be missing. Raises BackupFailed.
    """
    _refuse_existing(directory)
    partial = directory.with_name(directory.name + ".partial")
    try:
        shutil.rmtree(partial, ignore_errors=True)  # of a backup that was interrupted
        partial.mkdir(mode=0o700, parents=True)
        # Before the head is read: then no seal is of a later event.
        sums = {name: _copied(source, partial / name) for name, source in files.items()}
        manifest = await _write_log(url, partial, sums, progress)
        with _new_file(partial / MANIFEST) as file:
            file.write_now(msgspec.json.format(msgspec.json.encode(manifest)) + b"\n")
        sync_directory(partial)
        partial.replace(directory)
        sync_directory(directory.parent)
    except OSError as error:
        raise BackupFailed(f"cannot write {directory}: {error.strerror}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def _refuse_existing(directory: Path) -> None:
    if directory.exists():
        raise BackupFailed(f"{directory} is there already; a backup needs a new directory")


async def _write_log(url: str, directory: Path, sums: dict[str, FileSum], progress: Progress) -> Manifest:
    try:
        connection = await asyncpg.connect(
            url, timeout=CONNECT_SECONDS, server_settings={"application_name": "orders-backup", **_AS_TEXT}
        )
    except (*CONNECTION_LOST, ValueError, asyncpg.PostgresError) as error:
        raise BackupFailed(f"cannot connect: {error}") from error
    try:
        sums[HEAD] = await _copy(connection, directory / HEAD, ["log_head"])
        head = next(csv.DictReader((directory / HEAD).read_text().splitlines()))
        log_id, last = UUID(head["log_id"]), int(head["position"])
        if not last:
            raise BackupFailed("the log is empty: there is nothing to back up yet")
        # What is there up to this head stays there, so each statement may have a snapshot of its own.
        given = await connection.fetchval("select max(number) from log_ids where log_id = $1", log_id)
        ids = f"log_ids where number <= {given or 0} order by number"  # a later id is not that of this head
        sums[LOG_IDS] = await _copy(connection, directory / LOG_IDS, [ids])
        pages = (
            f"events where position > {after} and position <= {min(after + STRIDE, last)} order by position"
            for after in range(0, last, STRIDE)
        )
        sums[EVENTS] = await _copy(connection, directory / EVENTS, pages, lambda rows: progress(rows, last))
        keys = f"idempotency_keys where position <= {last} or stream_id like 'product-%' order by position"
        sums[KEYS] = await _copy(connection, directory / KEYS, [keys])
        # After the keys: what a key says was done is there.
        sums |= await _copy_catalogue(connection, directory)
        # After the events: a person that was erased meanwhile stays erased.
        sums[SUBJECT_KEYS] = await _copy(connection, directory / SUBJECT_KEYS, ["subject_keys order by key_id"])
    except asyncpg.UndefinedTableError as error:
        raise BackupFailed(f"this database holds no event log, or one of an older schema: {error}") from error
    except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
        raise BackupFailed(f"cannot read the log: {error}") from error
    finally:
        with suppress(*CONNECTION_LOST, asyncpg.PostgresError):
            await connection.close(timeout=CONNECT_SECONDS)
    made_at = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return Manifest(
        format=FORMAT,
        made_at=made_at,
        log_id=str(log_id),
        position=last,
        hash=head["hash"].removeprefix("\\x"),
        files=sums,
    )


async def _copy_catalogue(connection: Connection, directory: Path) -> dict[str, FileSum]:
    """In one snapshot: rows of these tables change."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        sums = {CATALOGUE_HEAD: await _copy(connection, directory / CATALOGUE_HEAD, ["catalogue_head"])}
        for table in CATALOGUE:
            sums[file_of(table)] = await _copy(connection, directory / file_of(table), [table])
    return sums


async def _copy(
    connection: Connection,
    path: Path,
    sources: Iterable[str],
    progress: Callable[[int], object] = lambda _rows: None,
) -> FileSum:
    """The rows of the sources (`table where …`), all of one table, as one CSV with a header."""
    with _new_file(path) as file:
        rows = 0
        for number, source in enumerate(sources):
            columns = await connection.fetchval(_COLUMNS, source.partition(" ")[0])
            status = await connection.copy_from_query(
                f"select {columns} from {source}",  # noqa: S608 - constants and numbers only
                output=file.write,
                format="csv",
                header=not number,
            )
            rows += int(status.removeprefix("COPY "))
            progress(rows)
        return file.sum()


def _copied(source: Path, path: Path) -> FileSum:
    with _new_file(path) as file, source.open("rb") as content:
        while chunk := content.read(_CHUNK):
            file.write_now(chunk)
        return file.sum()


class _NewFile:
    """Counts and hashes what is written."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._size = 0
        self._digest = hashlib.sha256()

    def write_now(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self._size += len(data)

    async def write(self, data: bytes) -> None:
        self.write_now(data)

    def sum(self) -> FileSum:
        return FileSum(self._size, self._digest.hexdigest())


@contextmanager
def _new_file(path: Path) -> Iterator[_NewFile]:
    """For its owner only: events hold customers' data, and a file may be a private key. On disk at the end."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        yield _NewFile(file)
        file.flush()
        os.fsync(file.fileno())
