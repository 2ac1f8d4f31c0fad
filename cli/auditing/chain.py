"""Walking the chain: each event must have the next position and the hash that follows from the one before."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID

from cli.auditing.diagnosis import Diagnosis
from cli.auditing.finding import Finding, Head, Kind
from cli.auditing.rows import Row
from cli.auditing.times import MINUS_INFINITY, rfc3339

MOST_INSERTED = 1_000  # consecutive events with good hashes that are recognised as inserted


class Start(NamedTuple):
    """An event that is known to be good, to walk on from."""

    position: int
    hash: bytes
    recorded_at: int


def genesis(first_id: UUID) -> Start:
    """The place before the first event, of a log whose first id that was."""
    return Start(0, sha256(first_id.bytes).digest(), MINUS_INFINITY)


class Walk:
    """Follows rows in the order of their positions. Keeps the version of every stream, some 130 bytes each."""

    def __init__(self, start: Start) -> None:
        self._first = start.position + 1
        self._position, self._hash, self._recorded_at = start
        self._earlier = deque([start.hash], maxlen=MOST_INSERTED + 1)
        self._versions: dict[bytes, int] = {}
        self._finding: Finding | None = None
        self._diagnosis: Diagnosis | None = None

    @property
    def walked(self) -> int:
        """Events found in order so far."""
        return self._position - self._first + 1

    @property
    def finished(self) -> bool:
        """Whether no later row can change the verdict."""
        return self._finding is not None

    def follow(self, rows: Iterable[Row]) -> None:
        """Walk on."""
        position, digest, recorded_at = self._position, self._hash, self._recorded_at
        versions, earlier = self._versions, self._earlier
        for row in rows:
            if self._diagnosis is not None:
                self._diagnosis.look(row)
                continue
            if row.position != position + 1 or sha256(digest + row.body).digest() != row.hash:
                self._stumble(row, position + 1)
            elif row.recorded_at < recorded_at:
                self._find(row, Kind.TIME, f"recorded at {rfc3339(row.recorded_at)}, before the event it follows")
            elif row.version != versions.get(row.stream_id, 0 if self._first == 1 else row.version - 1) + 1:
                stream, known = row.stream_id.decode(errors="replace"), versions.get(row.stream_id, 0)
                self._find(row, Kind.VERSION, f"version {row.version} of stream {stream} follows version {known}")
            if self._finding is not None:
                break
            if self._diagnosis is None:
                position, digest, recorded_at = row.position, row.hash, row.recorded_at
                versions[row.stream_id] = row.version
                earlier.append(digest)
        self._position, self._hash, self._recorded_at = position, digest, recorded_at

    def _find(self, row: Row, kind: Kind, detail: str) -> None:
        self._finding = Finding(row.position, kind, detail)

    def _stumble(self, row: Row, expected: int) -> None:
        if row.position > expected:
            last = row.position - 1
            which = f"event {expected} is" if last == expected else f"events {expected} to {last} are"
            self._finding = Finding(expected, Kind.MISSING, f"{which} not in the log, which goes on at {row.position}")
        elif row.position == expected:
            self._diagnosis = Diagnosis(row, list(self._earlier))
        elif row.position < 1:
            self._find(row, Kind.INSERTED, "the log begins at position 1")
        else:
            self._find(row, Kind.DUPLICATE, "more than one event has this position")

    def conclude(self, head: Head) -> Finding | None:
        """The first thing wrong, all rows having been followed; None when they lead to `head`."""
        if self._finding is not None:
            return self._finding
        if self._diagnosis is not None:
            return self._diagnosis.conclude(head)
        if head.position > self._position:
            detail = f"the log ends at position {self._position}, log_head says at {head.position}"
            return Finding(self._position + 1, Kind.CUT_TAIL, detail)
        if head.position < self._position:
            detail = f"log_head says the log ends at position {head.position}, but it goes on to {self._position}"
            return Finding(max(head.position, 0) + 1, Kind.HEAD, detail)
        if head.hash != self._hash:
            detail = f"log_head has the hash {head.hash.hex()}, the last event {self._hash.hex()}"
            return Finding(self._position, Kind.HEAD, detail)
        if head.recorded_at != self._recorded_at:
            detail = f"log_head was moved at {rfc3339(head.recorded_at)}, the last event {rfc3339(self._recorded_at)}"
            return Finding(self._position, Kind.HEAD, detail)
        return None
