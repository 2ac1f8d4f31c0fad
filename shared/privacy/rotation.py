"""Wraps the keys of subjects anew, with the newest key-encryption key, while services run."""

from __future__ import annotations

from pathlib import Path
from typing import TypeAlias

import asyncpg

from shared.privacy.key_encryption import KeyEncryption, Wrapped, id_of_secret, new_secret, read_secrets, write_secrets

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

BATCH = 500  # keys wrapped anew in one transaction

# Two rotations would each write a file without the other's secret. Held until the connection closes.
ROTATE_ALONE = "select pg_try_advisory_lock(hashtextextended('rotate keys', 0))"
_IN_USE = "select distinct wrapped_by from subject_keys where wrapped is not null"
_NEXT = """
select key_id, subject, wrapped, wrapped_by from subject_keys
where wrapped is not null and wrapped_by <> $1 and key_id > $2 order by key_id limit $3
"""
# Not of a key that was destroyed, or wrapped anew, since it was read.
_REPLACE = "update subject_keys set wrapped = $3, wrapped_by = $4 where key_id = $1 and wrapped = $2"


async def add_secret(connection: Connection, path: Path) -> None:
    """Puts a new secret in front of those of the file. The one before it stays, because a service may wrap with it at
    this moment; older ones that wrap no key any more are removed. Raises `UnusableSecrets` and `OSError`."""
    secrets = read_secrets(path)
    in_use = {row["wrapped_by"] for row in await connection.fetch(_IN_USE)}
    kept = [secret for secret in secrets[1:] if id_of_secret(secret) in in_use]
    write_secrets(path, [new_secret(), *secrets[:1], *kept])


async def wrap_anew(connection: Connection, encryption: KeyEncryption) -> int:
    """How many keys were wrapped anew. Raises `CannotUnwrap`; those wrapped until then stay so."""
    done, after = 0, ""
    while rows := await connection.fetch(_NEXT, encryption.newest, after, BATCH):
        async with connection.transaction():
            for key_id, subject, wrapped, wrapped_by in rows:
                key = encryption.unwrap(Wrapped(wrapped, wrapped_by), key_id, subject)
                status = await connection.execute(_REPLACE, key_id, wrapped, *encryption.wrap(key, key_id, subject))
                done += int(status.removeprefix("UPDATE "))
        after = rows[-1]["key_id"]
    return done
