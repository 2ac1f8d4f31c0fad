"""Folds the log again, through a projection alone: one event after the other, from the start."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from operator import add
from typing import Any, Generic

import msgspec

from projector.projection import Contribution, D, Entry, Projection, RecordedEvent
from projector.routing import PoisonEvent, record
from shared.eventstore.log import StoredEvent

MAX_STOPPED = 1_000  # documents whose fold stopped; with more, the projection is broken
MAX_UNSAVED_BYTES = 2 * 2**20  # of documents, as JSON, and of the events folded into them

_SCHEMA = """
create table documents (id text primary key, document blob) without rowid;
create table entries (name text, entry text, primary key (name, entry)) without rowid;
"""
_CACHE_KIB = 32 * 1024  # of all partitions

Lines = dict[tuple[str, ...], tuple[int, ...]]  # of a rollup: key -> sums


class Refold(Generic[D]):
    """Documents and entries as of `position`, in a temporary file, so that memory is bounded.

    A document stays before the first event that cannot be applied to it, as one that is parked.
    """

    def __init__(self, projection: Projection[D], database: sqlite3.Connection) -> None:
        self.position = 0
        self.lines: dict[str, Lines] = {one.name: {} for one in projection.rollups}
        self._projection = projection
        self._database = database
        self._decoder = msgspec.json.Decoder(projection.document)
        self._stopped: set[str] = set()
        # Documents as they are in the database, and as they will be.
        self._before: dict[str, D | None] = {}
        self._after: dict[str, D | None] = {}
        self._unsaved_bytes = 0

    def apply(self, events: Sequence[StoredEvent]) -> set[str]:
        """Folds events that follow `position`; the ids of the documents that they change.

        Raises `PoisonEvent` for an event of which the projection cannot tell which documents it changes, and when too
        many documents have stopped.
        """
        changed: set[str] = set()
        for event in map(record, events):
            try:
                document_ids = self._projection.route(event)
            except Exception as error:  # whatever it is, verification names the event
                raise PoisonEvent(event, "", error) from error
            for document_id in document_ids:
                self._apply(document_id, event)
            changed.update(document_ids)
            if self._unsaved_bytes > MAX_UNSAVED_BYTES:
                self._save()
        self._save()
        if events:
            self.position = events[-1].position
        return changed

    def _apply(self, document_id: str, event: RecordedEvent[Any]) -> None:
        if document_id not in self._after:
            self._before[document_id] = self._after[document_id] = self.document(document_id)
        if document_id in self._stopped:
            return
        try:
            self._after[document_id] = self._projection.apply(document_id, self._after[document_id], event)
        except Exception as error:  # whatever it is, the document stays before the event
            self._stopped.add(document_id)
            if len(self._stopped) > MAX_STOPPED:
                raise PoisonEvent(event, document_id, error) from error
        self._unsaved_bytes += len(event.data)

    def document(self, document_id: str) -> D | None:
        row = self._database.execute("select document from documents where id = ?", (document_id,)).fetchone()
        if row is None or row[0] is None:
            return None
        self._unsaved_bytes += len(row[0])
        return self._decoder.decode(row[0])

    def count(self) -> int:
        return int(self._database.execute("select count(*) from documents").fetchone()[0])

    def pages(self, size: int, max_bytes: int) -> Iterator[list[str]]:
        """The ids of all documents, in order; also of those that stopped before their first event. A page has at most
        `size`, and ends with the document that reaches the bytes."""
        last = ""
        while rows := self._database.execute(
            "select id, coalesce(length(document), 0) from documents where id > ? order by id limit ?", (last, size)
        ).fetchall():
            page, left = [], max_bytes
            for document_id, length in rows:
                page.append(document_id)
                left -= length
                if left <= 0:
                    break
            last = page[-1]
            yield page

    def has_document(self, document_id: str) -> bool:
        return self._database.execute("select 1 from documents where id = ?", (document_id,)).fetchone() is not None

    def has_entry(self, name: str, entry: str) -> bool:
        """Whether an index of that name has the entry."""
        found = self._database.execute("select 1 from entries where name = ? and entry = ?", (name, entry))
        return found.fetchone() is not None

    def _save(self) -> None:
        encode, before, after = msgspec.json.encode, self._before, self._after
        self._before, self._after, self._unsaved_bytes = {}, {}, 0
        with self._database:
            self._database.executemany(
                "insert or replace into documents values (?, ?)",
                [(name, None if document is None else encode(document)) for name, document in after.items()],
            )
            entries = self._projection.entries
            gone = chain.from_iterable(entries(document) for document in before.values() if document is not None)
            self._database.executemany("delete from entries where name = ? and entry = ?", self._index(gone, -1))
            new = chain.from_iterable(entries(document) for document in after.values() if document is not None)
            self._database.executemany("insert or replace into entries values (?, ?)", self._index(new, 1))

    def _index(self, entries: Iterable[Entry], sign: int) -> list[tuple[str, str]]:
        """Counts contributions in the rollups' lines; answers the entries of indexes."""
        listed = []
        for name, entry in entries:
            if isinstance(entry, Contribution):
                self._count(self.lines[name], entry, sign)
            else:
                listed.append((name, entry))
        return listed

    def _count(self, lines: Lines, contribution: Contribution, sign: int) -> None:
        amounts = tuple(sign * amount for amount in contribution.amounts)
        line = tuple(map(add, lines.get(contribution.key, (0,) * len(amounts)), amounts))
        if any(line):
            lines[contribution.key] = line
        else:
            lines.pop(contribution.key, None)


@contextmanager
def open_refold(projection: Projection[Any], partitions: int = 1) -> Iterator[Refold[Any]]:
    """An empty one of one of so many partitions; its file is removed at the end."""
    with closing(sqlite3.connect("")) as database:  # no name: a temporary file of SQLite's own
        database.executescript(f"pragma cache_size = -{_CACHE_KIB // partitions}; pragma synchronous = off;{_SCHEMA}")
        yield Refold(projection, database)
