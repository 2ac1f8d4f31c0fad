"""A server that is demoted: another takes its place and its address, while sessions with the old one live on."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
from redis.asyncio import Redis

from cli.stack.embedded_postgres import EmbeddedPostgres
from cli.stack.embedded_valkey import EmbeddedValkey
from tests.running import eventually

_READ_ONLY = "default_transaction_read_only"


async def make_read_only(server: EmbeddedPostgres) -> None:
    """New transactions of all sessions are read-only, also of those that are open."""
    connection = await asyncpg.connect(server.url)
    await connection.execute(f"alter system set {_READ_ONLY} = on")
    await connection.execute("select pg_reload_conf()")
    await eventually(lambda: connection.fetchval(f"select current_setting('{_READ_ONLY}')::boolean"))
    await connection.close()


@asynccontextmanager
async def promoted_copy(server: EmbeddedPostgres, directory: Path) -> AsyncIterator[EmbeddedPostgres]:
    """A server with all that the read-only one has, which takes writes."""
    connection = await asyncpg.connect(server.url)
    await connection.execute("select pg_backup_start('promoted', true)")
    await asyncio.to_thread(_copy_data, server.directory, directory)
    label = await connection.fetchval("select labelfile from pg_backup_stop()")
    await connection.close()
    await asyncio.to_thread(_copy_log, server.directory, directory, label)
    with EmbeddedPostgres(directory, password=server.password) as copy:
        yield copy


def _copy_data(original: Path, copy: Path) -> None:
    shutil.copytree(original, copy, ignore=shutil.ignore_patterns("postmaster.*", "pg_wal"))
    settings = copy / "postgresql.auto.conf"
    kept = [line for line in settings.read_text().splitlines() if not line.startswith(_READ_ONLY)]
    settings.write_text("\n".join(kept) + "\n")


def _copy_log(original: Path, copy: Path, label: str) -> None:
    """What was written meanwhile, so that the copy recovers to the end."""
    shutil.copytree(original / "pg_wal", copy / "pg_wal")
    (copy / "backup_label").write_text(label)
    owner = original.stat()
    for path in (copy, *copy.rglob("*")):
        shutil.chown(path, owner.st_uid, owner.st_gid)


@asynccontextmanager
async def promoted_replica(server: EmbeddedValkey, directory: Path) -> AsyncIterator[EmbeddedValkey]:
    """A server that has replicated all that the other one has, and takes its place. The other one is made a replica of
    a server that is not there: it answers, refuses writes, and learns of nothing."""
    with EmbeddedValkey(directory, password=server.password) as replica:
        async with Redis.from_url(server.url) as old, Redis.from_url(replica.url) as new:
            await new.config_set("masterauth", server.password)
            await new.replicaof("127.0.0.1", server.port)

            async def has_replicated() -> bool:
                role = await new.info("replication")
                return bool(role["master_link_status"] == "up")

            await eventually(has_replicated)
            await old.replicaof("127.0.0.1", 1)
            await new.replicaof("no", "one")
        yield replica
