"""Applies `migrations/NNNN_topic.sql` in order, each once."""

from __future__ import annotations

import base64
import hashlib
import hmac
import re
import secrets
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import TypeAlias

import asyncpg

from shared.postgres import CONNECT_SECONDS, refuse_transaction_pooling

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_NAME = re.compile(r"\d{4}_[a-z0-9_]+\.sql")
_LOCK = 0x6F7264657273  # "orders": serialises migrators
LOCK_SECONDS = 10  # longer than any transaction of ours holds a lock that a migration needs

_SCRAM_ITERATIONS = 4096  # as the server itself uses

_TABLE = """
create table if not exists schema_migrations (
    name text primary key,
    sha256 bytea not null,
    applied_at timestamptz not null default clock_timestamp()
)
"""


# The sessions that hold what this one would wait for: the lock of migrators, and locks on the database's own tables. A
# service's statements hold theirs for a moment, so the oldest transactions come first.
_HOLDERS = """
select distinct on (a.backend_start, a.pid) a.pid, a.usename, a.application_name
from pg_locks l join pg_stat_activity a on a.pid = l.pid
where l.granted and l.pid <> pg_backend_pid()
  and l.database = (select oid from pg_database where datname = current_database())
  and ((l.locktype = 'advisory' and (l.classid::bigint << 32) | l.objid::bigint = $1)
       or (l.locktype = 'relation' and l.relation >= 16384))
order by a.backend_start, a.pid limit 5
"""


class MigrationRefused(Exception):
    """The migrations were not applied; the message says why, and what to do."""


class MigrationBlocked(MigrationRefused):
    """Other sessions hold locks that the migrations need. `holders` are (pid, user, application)."""

    def __init__(self, holders: list[tuple[int, str, str]]) -> None:
        named = ", ".join(f"pid {pid} ({user}, {application or 'no name'})" for pid, user, application in holders)
        super().__init__(
            f"another session has held a lock that the migrations need for {LOCK_SECONDS} s: {named or 'not known'}. If"
            " it is another `orders migrate`, wait for it; else end it with `select pg_terminate_backend(<pid>)`."
        )
        self.holders = holders


class IncompatibleDatabase(MigrationRefused):
    """The database records a migration that this program does not have, or has with another text."""

    def __init__(self, migration: str) -> None:
        super().__init__(
            f"an earlier, unreleased version of this program made the database ({migration} is not one of today's"
            " migrations), and it cannot be upgraded. To start afresh, stop the stack, delete its data directory (of a"
            " PostgreSQL of your own: drop the database and create an empty one), and start again."
        )


class BadPassword(ValueError):
    """A password that clients could not use; it is not in the message."""

    def __init__(self, role: str) -> None:
        super().__init__(f"the password of {role} has other characters than the printable ones of ASCII")


def migrations() -> list[tuple[str, str]]:
    """(name, SQL) of every migration, in order."""
    found = [f for f in files("migrations").iterdir() if _NAME.fullmatch(f.name)]
    return [(f.name, f.read_text("utf-8")) for f in sorted(found, key=lambda f: f.name)]


async def migrate(
    database_url: str, passwords: Mapping[str, str] | None = None, tell: Callable[[str], None] | None = None
) -> list[str]:
    """Applies what is missing, each migration in a transaction of its own. Returns the names applied.

    `passwords` are set for the roles they name (`orders_command`, …); a role without one cannot log in. ASCII only.
    `tell` is called with each warning of a migration.
    Raises `IncompatibleDatabase` before touching anything where an applied migration is not one of today's,
    `MigrationBlocked` after `LOCK_SECONDS`, and `shared.postgres.TransactionPooling` or `BadPassword`.
    """
    for role, password in (passwords or {}).items():
        if not (password.isascii() and password.isprintable()):  # others, clients normalise before they use them
            raise BadPassword(role)
    connection = await asyncpg.connect(
        database_url, timeout=CONNECT_SECONDS, server_settings={"application_name": "orders-migrate"}
    )
    try:
        await refuse_transaction_pooling(connection, database_url)
        if tell is not None:
            connection.add_log_listener(lambda _, message: tell(message.message))
        # Set after connecting: a pooler may refuse a connection that asks for it.
        await connection.execute(f"set lock_timeout = {round(LOCK_SECONDS * 1_000)}; set client_min_messages = warning")
        await connection.execute("select pg_advisory_lock($1)", _LOCK)
        await connection.execute(_TABLE)
        applied = [name for name, sql in await _missing(connection) if await _apply(connection, name, sql)]
        for role, password in (passwords or {}).items():
            await _set_password(connection, role, password)
        return applied
    except asyncpg.LockNotAvailableError as error:
        holders = await connection.fetch(_HOLDERS, _LOCK)
        raise MigrationBlocked([(row["pid"], row["usename"], row["application_name"]) for row in holders]) from error
    finally:
        await connection.close()


async def _missing(connection: Connection) -> list[tuple[str, str]]:
    rows = await connection.fetch("select name, sha256 from schema_migrations order by name")
    applied: dict[str, bytes] = {row["name"]: row["sha256"] for row in rows}
    known = migrations()
    texts = dict(known)
    for name, checksum in applied.items():
        # One with a higher number is of a newer program: during a deploy, an old one may still be started.
        if name not in texts and name < known[-1][0]:
            raise IncompatibleDatabase(name)
        if name in texts and checksum != _checksum(texts[name]):
            raise IncompatibleDatabase(name)
    return [(name, sql) for name, sql in known if name not in applied]


def _checksum(sql: str) -> bytes:
    return hashlib.sha256(sql.encode()).digest()


async def _apply(connection: Connection, name: str, sql: str) -> bool:
    async with connection.transaction():
        await connection.execute(sql)
        await connection.execute("insert into schema_migrations (name, sha256) values ($1, $2)", name, _checksum(sql))
    return True


async def _set_password(connection: Connection, role: str, password: str) -> None:
    statement = await connection.fetchval(
        "select format('alter role %I password %L', $1::text, $2::text)", role, _scram(password)
    )
    await connection.execute(statement)


def _scram(password: str) -> str:
    """The verifier that PostgreSQL stores (RFC 5803). Made here, so that the password is neither sent nor logged."""
    salt = secrets.token_bytes(16)
    salted = hashlib.pbkdf2_hmac("sha256", password.encode(), salt, _SCRAM_ITERATIONS)
    client_key = hmac.digest(salted, b"Client Key", "sha256")
    server_key = hmac.digest(salted, b"Server Key", "sha256")
    parts = [salt, hashlib.sha256(client_key).digest(), server_key]
    salt_text, stored_text, server_text = (base64.b64encode(part).decode() for part in parts)
    return f"SCRAM-SHA-256${_SCRAM_ITERATIONS}:{salt_text}${stored_text}:{server_text}"
