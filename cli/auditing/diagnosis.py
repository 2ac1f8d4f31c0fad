"""Diagnoses the first position that does not fit.

The hash before it is known to be right, so every later event can be tried in its place. The event after it shows
whether the fields or the stored hash were changed.
"""

from __future__ import annotations

from collections.abc import Sequence

from cli.auditing.finding import Finding, HeadRow, Kind
from cli.auditing.rows import Row

MOST_REMOVED = 1_000  # consecutive removed events that are recognised when the rest is renumbered


class Diagnosis:
    """Of `row`, which does not follow `earlier[-1]`, the hash of the event before it."""

    def __init__(self, row: Row, earlier: Sequence[bytes]) -> None:
        self._row = row
        self._previous = earlier[-1]
        self._computed = row.digest(self._previous)
        self._next: Row | None = None
        self._displaced: Row | None = None  # the event that was recorded here
        self._inserted_before = self._count_inserted(earlier)

    def add(self, later: Row) -> None:
        """Consider the next event of the log."""
        if self._next is None:
            self._next = later
        if self._displaced is None and later.digest(self._previous, self._row.position) in (later.hash, self._row.hash):
            self._displaced = later

    def result(self, head: HeadRow) -> Finding:
        """The fault, once all later events were added."""
        if self._inserted_before:
            return self._inserted(self._row.position - self._inserted_before, self._inserted_before)
        if self._displaced is not None:
            return self._moved(self._displaced)
        if removed := self._count_removed(head):
            return self._found(
                Kind.REMOVED,
                f"{_events(removed)} removed before this one and the rest renumbered: the hashes from here on were made"
                f" at positions higher by {removed}",
            )
        return self._changed(head)

    def _found(self, kind: Kind, detail: str) -> Finding:
        return Finding(self._row.position, kind, detail)

    def _count_inserted(self, earlier: Sequence[bytes]) -> int:
        """How many events with good hashes were inserted before this one."""
        for count, previous in enumerate(reversed(earlier[:-1]), start=1):
            if self._row.follows(previous, self._row.position - count):
                return count
        return 0

    def _inserted(self, position: int, count: int) -> Finding:
        return Finding(
            position, Kind.INSERTED, f"the event recorded here is now at position {position + count}: "
            f"{_events(count)} inserted before it",
        )  # fmt: skip

    def _moved(self, displaced: Row) -> Finding:
        """The event of this position has a higher one: events were inserted before it, or two were exchanged."""
        here = self._row.position
        true_hash = displaced.digest(self._previous, here)
        second = self._row.digest(true_hash, here + 1) in (self._row.hash, displaced.hash)
        if second or (self._next is not displaced and self._next is not None and self._next.follows(true_hash)):
            detail = f"the event recorded here is now at position {displaced.position}, another has its place"
            return self._found(Kind.REORDERED, detail)
        return self._inserted(here, displaced.position - here)

    def _count_removed(self, head: HeadRow) -> int:
        """How many events were removed before this one, from the position with which its successor was hashed."""
        later = self._next
        if later is None:
            return head.position - self._row.position if head.hash == self._row.hash else 0
        for count in range(1, MOST_REMOVED + 1):
            if later.follows(self._row.hash, later.position + count):
                return count
        return 0

    def _changed(self, head: HeadRow) -> Finding:
        row, later = self._row, self._next
        witness = "log_head" if later is None else f"event {later.position}"
        before = "log_head.log_id was changed" if row.position == 1 else f"event {row.position - 1} was, hash included"
        if head.hash == row.hash if later is None else later.follows(row.hash):
            return self._found(
                Kind.CHANGED,
                f"the row does not match its hash, and {witness} was recorded after that very hash: a field of this"
                f" event was changed, or {before}",
            )
        if head.hash == self._computed if later is None else later.follows(self._computed):
            detail = f"the stored hash was changed: {witness} was recorded after the hash that the row's fields have"
            return self._found(Kind.REHASHED, detail)
        return self._found(
            Kind.BROKEN,
            f"the row does not match its hash, and {witness} follows neither from it nor from the row's fields: more"
            " than this event was changed",
        )


def _events(count: int) -> str:
    return "an event was" if count == 1 else f"{count} events were"
