"""What the sandbox did, in SQLite: a killed process loses nothing of it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from time import time
from typing import Any, NamedTuple

import msgspec

from command_service.gateways.messages import EffectMessage, OutcomeMessage

_SCHEMA = """
create table if not exists requests (
    service text, effect_id text, message blob not null, attempts integer not null, due real,
    primary key (service, effect_id));
create table if not exists effects (
    position integer primary key, service text, effect_id text, outcome blob not null, at text not null,
    unique (service, effect_id));
create table if not exists payments (
    reference text primary key, amount integer not null, captured integer not null default 0,
    refunded integer not null default 0, voided integer not null default 0);
create table if not exists parcels (
    tracking_number text primary key, behaviour text, replaces text, state text not null, trackings integer default 0);
create table if not exists callbacks (
    id text primary key, service text, message blob not null, copies integer not null,
    attempts integer not null default 0, due real not null);
"""


class Entry(msgspec.Struct, frozen=True):
    """An effect that was carried out."""

    position: int
    effect_id: str
    effect: str
    data: dict[str, Any]
    outcome: str
    answer: dict[str, Any]  # the data of the outcome
    attempts: int  # requests with its id
    at: datetime


class Requested(NamedTuple):
    """The first request with its id. `due`: when it is to be carried out, of one that is delayed."""

    effect_id: str
    message: EffectMessage
    attempts: int
    due: float | None


class Ledger:
    def __init__(self, path: str) -> None:
        """`path` is a file, or empty: in memory."""
        # The file system keeps what a killed process wrote; nothing here has to survive a power cut.
        self.database = sqlite3.connect(path or ":memory:", isolation_level=None)
        self.database.executescript(f"pragma journal_mode = wal; pragma synchronous = off; {_SCHEMA}")

    def close(self) -> None:
        self.database.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        with self.database:  # commits, or rolls back
            self.database.execute("begin immediate")
            yield

    def record_request(self, service: str, effect_id: str, message: EffectMessage) -> Requested:
        """Counts the request."""
        encoded = msgspec.json.encode(message)
        stored, attempts, due = self.database.execute(
            "insert into requests values (?, ?, ?, 1, null)"
            " on conflict do update set attempts = attempts + 1 returning message, attempts, due",
            (service, effect_id, encoded),
        ).fetchone()
        return Requested(effect_id, msgspec.json.decode(stored, type=EffectMessage), attempts, due)

    def delay(self, service: str, effect_id: str, due: float | None) -> None:
        """Has it carried out at `due`; None: it was."""
        self.database.execute(
            "update requests set due = ? where service = ? and effect_id = ?", (due, service, effect_id)
        )

    def delayed(self, service: str) -> list[Requested]:
        """Those to be carried out now or later."""
        rows = self.database.execute(
            "select effect_id, message, attempts, due from requests where service = ? and due is not null", (service,)
        )
        return [
            Requested(effect_id, msgspec.json.decode(message, type=EffectMessage), attempts, due)
            for effect_id, message, attempts, due in rows
        ]

    def is_delayed(self, service: str, effect_id: str) -> bool:
        found = self.database.execute(
            "select 1 from requests where service = ? and effect_id = ? and due is not null", (service, effect_id)
        )
        return found.fetchone() is not None

    def record(self, service: str, effect_id: str, outcome: msgspec.Struct) -> OutcomeMessage:
        message = OutcomeMessage(effect_id, type(outcome).__name__, msgspec.to_builtins(outcome))
        self.database.execute(
            "insert into effects (service, effect_id, outcome, at) values (?, ?, ?, ?)",
            (service, effect_id, msgspec.json.encode(message), datetime.now(UTC).isoformat()),
        )
        return message

    def outcome_of(self, service: str, effect_id: str) -> OutcomeMessage | None:
        found = self.database.execute(
            "select outcome from effects where service = ? and effect_id = ?", (service, effect_id)
        ).fetchone()
        return None if found is None else msgspec.json.decode(found[0], type=OutcomeMessage)

    def entries(self, service: str, process_id: str, after: int, limit: int) -> list[Entry]:
        """In order. `process_id`: of its effects alone; empty: all."""
        rows = self.database.execute(
            "select position, effect_id, message, outcome, attempts, at"
            " from effects join requests using (service, effect_id) where service = ?1 and position > ?2"
            " and (?3 = '' or rtrim(effect_id, '0123456789') = ?3 || '-') order by position limit ?4",
            (service, after, process_id, limit),
        )
        return [_entry(*row) for row in rows]

    def add_callback(self, callback_id: str, service: str, message: bytes, copies: int) -> None:
        self.database.execute(
            "insert into callbacks (id, service, message, copies, due) values (?, ?, ?, ?, ?)",
            (callback_id, service, message, copies, time()),
        )


def _entry(position: int, effect_id: str, message: bytes, outcome: bytes, attempts: int, at: str) -> Entry:
    given = msgspec.json.decode(message, type=EffectMessage)
    found = msgspec.json.decode(outcome, type=OutcomeMessage)
    return Entry(
        position, effect_id, given.effect, given.data, found.outcome, found.data, attempts, datetime.fromisoformat(at)
    )
