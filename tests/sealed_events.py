"""Events of orders as they were given, for tests that read the log: their sealed texts opened."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import asyncpg
import msgspec

from shared.aggregates.order import OrderEvent
from shared.aggregates.order.personal_texts import NOTE, REASON
from shared.privacy.key_encryption import KeyEncryption, Wrapped
from shared.privacy.sealed import SubjectKey, Unopenable, has_sealed, key_id_of
from tests.key_encryption import SECRET

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_ADDRESS = ("name", "lines", "city", "region", "postal_code", "phone")
_FIELDS = (REASON, NOTE, *(f"address.{name}" for name in _ADDRESS))


async def open_events(connection: Connection, events: Sequence[OrderEvent]) -> list[OrderEvent]:
    keys: dict[str, SubjectKey] | None = None
    opened: list[OrderEvent] = []
    for event in events:
        if not has_sealed(msgspec.json.encode(event)):
            opened.append(event)
            continue
        keys = keys or await _keys(connection)
        opened.append(msgspec.convert(_open(msgspec.to_builtins(event), keys), type(event)))
    return opened


async def _keys(connection: Connection) -> dict[str, SubjectKey]:
    encryption = KeyEncryption(lambda: [SECRET])
    rows = await connection.fetch("select key_id, subject, wrapped, wrapped_by from subject_keys where wrapped <> ''")
    return {
        key_id: SubjectKey(key_id, subject, encryption.unwrap(Wrapped(wrapped, by), key_id, subject))
        for key_id, subject, wrapped, by in rows
    }


def _open(value: Any, keys: dict[str, SubjectKey]) -> Any:
    if isinstance(value, dict):
        return {name: _open(part, keys) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_open(part, keys) for part in value]
    if isinstance(value, str) and (key_id := key_id_of(value)) is not None:
        for field in _FIELDS:
            try:
                return keys[key_id].open(field, value)
            except Unopenable:
                continue
    return value
