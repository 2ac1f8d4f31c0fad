"""Applies `migrations/NNNN_verb_noun.sql` in order, each once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Mapping
from importlib.resources import files
from typing import TypeAlias

import asyncpg

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_NAME = re.compile(r"\d{4}_[a-z0-9_]+\.sql")
_LOCK = 0x6F7264657273  # "orders": two migrators at once take turns

_SCRAM_ITERATIONS = 4096  # as the server itself uses

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


async def migrate(database_url: str, passwords: Mapping[str, str] | None = None) -> list[str]:
    """Applies what is missing, each migration in a transaction of its own. Returns the names applied.

    `passwords` are set for the roles they name (`orders_command`, …); a role without one cannot log in. ASCII only.
    Raises `ChangedMigrationError` before touching anything when an applied migration differs from its file.
    """
    connection = await asyncpg.connect(database_url, server_settings={"application_name": "orders-migrate"})
    try:
        await connection.execute("select pg_advisory_lock($1)", _LOCK)
        await connection.execute("set client_min_messages = warning")
        await connection.execute(_TABLE)
        applied = [name for name, sql in await _missing(connection) if await _apply(connection, name, sql)]
        for role, password in (passwords or {}).items():
            await _set_password(connection, role, password)
        return applied
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


async def _set_password(connection: Connection, role: str, password: str) -> None:
    statement = await connection.fetchval(
        "select format('alter role %I password %L', $1::text, $2::text)", role, _scram(password)
    )
    await connection.execute(statement)


def _scram(password: str) -> str:
    """The verifier that PostgreSQL stores (RFC 5803). Made here, so that the password is neither sent nor logged."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, _SCRAM_ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    parts = [salt, hashlib.sha256(client_key).digest(), server_key]
    salt_text, stored_text, server_text = (base64.b64encode(part).decode() for part in parts)
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{salt_text}${stored_text}:{server_text}"
