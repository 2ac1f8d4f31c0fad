"""Applies `migrations/NNNN_verb_noun.sql` in order, each once."""

from __future__ import annotations

import re
from importlib.resources import files
from typing import TypeAlias

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_NAME = re.compile(r"\d{4}_[a-z0-9_]+\.sql")
_LOCK = 0x6F7264657273  # "orders": two migrators at once take turns

_TABLE = """
create table if not exists schema_migrations (
    name text primary key,
    sha256 bytea not null,
    applied_at timestamptz not null default clock_timestamp()
)
"""


class ChangedMigrationError(Exception):
    """A migration that was applied here has since been edited; write a new one instead."""


def migrations() -> list[tuple[str, str]]:
    """(name, SQL) of every migration, in order."""
    found = [f for f in files("migrations").iterdir() if _NAME.fullmatch(f.name)]
    return [(f.name, f.read_text("utf-8")) for f in sorted(found, key=lambda f: f.name)]


async def migrate(database_url: str) -> list[str]:
    """Applies what is missing, each migration in a transaction of its own. Returns the names applied.

    Raises `ChangedMigrationError` before touching anything when an applied migration differs from its file.
    """
    connection = await asyncpg.connect(database_url, server_settings={"application_name": "orders-migrate"})
    try:
        await connection.execute("select pg_advisory_lock($1)", _LOCK)
        await connection.execute("set client_min_messages = warning")
        await connection.execute(_TABLE)
        return [name for name, sql in await _missing(connection) if await _apply(connection, name, sql)]
    finally:
        await connection.close()


async def _missing(connection: Connection) -> list[tuple[str, str]]:
    rows = await connection.fetch("select name, sha256 from schema_migrations")
    applied: dict[str, bytes] = {row["name"]: row["sha256"] for row in rows}
    missing = []
    for name, sql in migrations():
        if name not in applied:
            missing.append((name, sql))
        elif applied[name] != await connection.fetchval("select sha256(convert_to($1, 'UTF8'))", sql):
            raise ChangedMigrationError(f"{name} was edited after it had been applied here")
    return missing


async def _apply(connection: Connection, name: str, sql: str) -> bool:
    async with connection.transaction():
        await connection.execute(sql)
        await connection.execute(
            "insert into schema_migrations (name, sha256) values ($1, sha256(convert_to($2, 'UTF8')))",
            name,
            sql,
        )
    return True
