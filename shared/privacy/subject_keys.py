"""The keys of subjects, in PostgreSQL: one a subject, destroyed with the event of its erasure."""

from __future__ import annotations

import secrets
from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple
from uuid import UUID

import asyncpg

from shared.errors import Unavailable
from shared.logs import get_logger
from shared.postgres import CONNECTION_LOST
from shared.privacy.key_encryption import CannotUnwrap, KeyEncryption, UnusableSecrets, Wrapped
from shared.privacy.sealed import KEY_BYTES, SubjectKey

MAX_DESTROYED = 10_000  # of one answer

_CURRENT = """
select key_id, wrapped, wrapped_by from subject_keys where subject = $1 order by generation desc limit 1
"""
_OF_IDS = "select key_id, subject, wrapped, wrapped_by from subject_keys where key_id = any($1) and wrapped is not null"
_DESTROYED = """
select h.log_id, h.position, k.key_id, k.erasure
from log_head h
left join lateral (select key_id, erasure from subject_keys where erasure > $1 order by erasure limit $2) k on true
"""
_ERASURE = """
with erased as (
    select max(position) as position, max(recorded_at) as at
    from events where stream_id = $1 and event_type = $2 having count(*) > 0
), sealed as (
    select found[1] as key_id, k.wrapped is not null as opens
    from erased
    join events e on e.owner = $3 and e.position <= erased.position
    cross join regexp_matches(e.data::text, 'sealed:1:([A-Za-z0-9_-]{16}):', 'g') found
    join subject_keys k on k.key_id = found[1] and k.subject = $1
)
select position, at, (select count(*) from sealed) as sealed_values,
       (select count(*) from sealed where opens) as openable_values,
       array(select distinct key_id from sealed) as key_ids,
       array(select distinct key_id from sealed where opens) as existing_key_ids
from erased
"""
_LATEST_ID = """
select key_id, wrapped is not null as exists from subject_keys where subject = $1 order by generation desc limit 1
"""
_OWNS_STREAMS = "select exists (select from events where owner = $1)"
_OWNER = "select owner from events where stream_id = $1 and version = 1"
_MAKE = "select make_subject_key($1, $2, $3, $4, $5)"

_log = get_logger()


@dataclass
class SubjectKeysUnavailable(Unavailable):
    reason: str  # which clients are told as well
    code = "subject-keys-unavailable"
    title = "The keys of personal data cannot be read"

    @property
    def detail(self) -> str:
        return f"Personal data can neither be sealed nor opened now: {self.reason}."


NO_SECRET = "KEY_ENCRYPTION_KEY is not set"  # noqa: S105 - the name of a setting


class Destroyed(NamedTuple):
    """The next keys that were destroyed, at most `MAX_DESTROYED`: (id, position of the event) in their order."""

    log_id: UUID  # of which the positions are
    position: int  # of the log's head
    keys: list[tuple[str, int]]


class Erasure(NamedTuple):
    """The last one of a subject, by the log, and what the streams that belong to it hold up to there. Nothing opens and
    no key exists, unless a backup brought a destroyed key back."""

    position: int
    at: datetime
    sealed_values: int
    openable_values: int
    key_ids: list[str]  # of the keys that these were sealed with
    existing_key_ids: list[str]


class SubjectKeys:
    """Reads and makes keys; caches none. Every method raises `SubjectKeysUnavailable`."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], encryption: KeyEncryption | None) -> None:
        self._pool = pool
        self._encryption = encryption

    async def current(self, subject: str) -> SubjectKey | None:
        """The key to seal with; None where the subject has none, or was erased."""
        rows = await self._fetch(_CURRENT, subject)
        if not rows or rows[0]["wrapped"] is None:
            return None
        return self._unwrap(rows[0]["key_id"], subject, rows[0])

    async def begin(self, subject: str) -> SubjectKey:
        """The key of a subject that is registered now: its own, or a new one. That of an erased subject is of the next
        generation, and opens nothing that was sealed before."""
        if (key := await self.current(subject)) is None:
            await self._make(subject, anew=True)
            if (key := await self.current(subject)) is None:  # erased meanwhile
                raise SubjectKeysUnavailable("the subject was erased a moment ago")
        return key

    async def current_or_first(self, subject: str) -> SubjectKey | None:
        """The key to seal with, which is made where the subject never had one; None where it was erased."""
        if (key := await self.current(subject)) is None:
            await self._make(subject, anew=False)
            key = await self.current(subject)
        return key

    async def id_to_destroy(self, subject: str) -> str | None:
        """Of the subject's key, which is made where it never had one: a registration that begins now gets no other.
        None where it was destroyed."""
        if not (rows := await self._fetch(_LATEST_ID, subject)):
            await self._make(subject, anew=False)
            rows = await self._fetch(_LATEST_ID, subject)
        return rows[0]["key_id"] if rows[0]["exists"] else None

    async def _make(self, subject: str, *, anew: bool) -> None:
        """Unless the subject has a key; if it had one that was destroyed, only `anew`."""
        key_id = secrets.token_urlsafe(12)
        encryption = self._require()
        try:
            wrapped = encryption.wrap(secrets.token_bytes(KEY_BYTES), key_id, subject)
        except UnusableSecrets as error:
            raise SubjectKeysUnavailable("the key-encryption keys cannot be read") from error
        await self._fetch(_MAKE, key_id, subject, *wrapped, anew)

    async def find(self, key_ids: Collection[str]) -> dict[str, SubjectKey]:
        """Those that still exist, by id."""
        rows = await self._fetch(_OF_IDS, [*key_ids])
        return {row["key_id"]: self._unwrap(row["key_id"], row["subject"], row) for row in rows}

    async def destroyed_since(self, erasure: int) -> Destroyed:
        rows = await self._fetch(_DESTROYED, erasure, MAX_DESTROYED)
        keys = [(row["key_id"], row["erasure"]) for row in rows if row["key_id"]]
        return Destroyed(rows[0]["log_id"], rows[0]["position"], keys)

    async def owns_streams(self, owner_id: str) -> bool:
        """Whether the log has anything that belongs to the id."""
        rows = await self._fetch(_OWNS_STREAMS, owner_id)
        return bool(rows[0][0])

    async def owner_of(self, stream_id: str) -> str | None:
        """Whose stream it is; None where there is none, or it has no owner."""
        rows = await self._fetch(_OWNER, stream_id)
        return rows[0][0] if rows else None

    async def erasure_of(self, subject: str, event_type: str, owner_id: str) -> Erasure | None:
        """None where the subject was never erased, which is an event of that type. Its streams belong to `owner_id`."""
        rows = await self._fetch(_ERASURE, subject, event_type, owner_id)
        return Erasure(*rows[0]) if rows else None

    def _unwrap(self, key_id: str, subject: str, row: asyncpg.Record) -> SubjectKey:
        try:
            key = self._require().unwrap(Wrapped(row["wrapped"], row["wrapped_by"]), key_id, subject)
        except (CannotUnwrap, UnusableSecrets) as error:
            _log.error("subject key not unwrapped", key_id=key_id, error=str(error))
            raise SubjectKeysUnavailable("a key-encryption key is missing") from error
        return SubjectKey(key_id, subject, key)

    def _require(self) -> KeyEncryption:
        if self._encryption is None:
            raise SubjectKeysUnavailable(NO_SECRET)
        return self._encryption

    async def _fetch(self, statement: str, *arguments: object) -> list[asyncpg.Record]:
        try:
            return await self._pool.fetch(statement, *arguments)
        except CONNECTION_LOST as error:
            raise SubjectKeysUnavailable("PostgreSQL does not answer") from error
        except asyncpg.PostgresError as error:  # such as before `orders migrate`
            raise SubjectKeysUnavailable("PostgreSQL refuses to read them") from error
