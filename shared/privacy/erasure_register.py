"""The register of erasures: which keys were destroyed. It is kept outside, like seals: a restored backup brings keys
back that were destroyed since it was made, and the register destroys them again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import TypeAlias

import asyncpg
import msgspec

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_READ = "select key_id, subject, erased_at from subject_keys where erasure is not null order by erasure, key_id"
_DESTROY = """
update subject_keys k
set wrapped = null, wrapped_by = null, erasure = h.position, erased_at = given.erased_at
from log_head h, unnest($1::text[], $2::timestamptz[]) given (key_id, erased_at)
where k.key_id = given.key_id and k.wrapped is not null
"""


class MalformedRegister(ValueError):
    """A line is not one of ours."""


class DestroyedKey(msgspec.Struct, frozen=True):
    key_id: str
    subject: str
    erased_at: datetime


async def read_destroyed(connection: Connection) -> list[DestroyedKey]:
    """All that the database knows of, in their order."""
    return [DestroyedKey(*row) for row in await connection.fetch(_READ)]


async def destroy_again(connection: Connection, register: Sequence[DestroyedKey]) -> int:
    """How many of these keys there were. Needs the rights of the owner."""
    key_ids, times = [one.key_id for one in register], [one.erased_at for one in register]
    status = await connection.execute(_DESTROY, key_ids, times)
    return int(status.removeprefix("UPDATE "))


def encode(register: Iterable[DestroyedKey]) -> str:
    """One line of JSON for each."""
    return "".join([f"{msgspec.json.encode(one).decode()}\n" for one in register])


def decode(text: str) -> list[DestroyedKey]:
    """Raises `MalformedRegister`."""
    try:
        return [msgspec.json.decode(line, type=DestroyedKey) for line in text.splitlines() if line.strip()]
    except msgspec.DecodeError as error:
        raise MalformedRegister(f"a line is none of a register of erasures: {error}") from error
