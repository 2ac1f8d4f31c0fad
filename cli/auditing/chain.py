"""Verifies the hash chain: each event has the next position, and its hash follows from the hash before it."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from hashlib import sha256
from typing import NamedTuple
from uuid import UUID

from cli.auditing.diagnosis import Diagnosis
from cli.auditing.finding import Finding, HeadRow, Kind
from cli.auditing.rows import Row
from cli.auditing.times import MINUS_INFINITY, rfc3339

MOST_INSERTED = 1_000  # consecutive inserted events with good hashes that are recognised


class ChainStart(NamedTuple):
    """An event known to be good, after which the verification begins."""

    position: int
    hash: bytes
    recorded_at: int


def genesis(first_id: UUID) -> ChainStart:
    """The start of a whole log whose first id was `first_id`."""
    return ChainStart(0, sha256(first_id.bytes).digest(), MINUS_INFINITY)


class ChainVerifier:
    """Checks rows in the order of their positions. Keeps the version of every stream, about 130 bytes each."""

    def __init__(self, start: ChainStart) -> None:
        self._first = start.position + 1
        self._position, self._hash, self._recorded_at = start
        self._earlier = deque([start.hash], maxlen=MOST_INSERTED + 1)
        self._versions: dict[bytes, int] = {}
        self._finding: Finding | None = None
        self._diagnosis: Diagnosis | None = None

    @property
    def verified(self) -> int:
        """Events found in order so far."""
        return self._position - self._first + 1

    @property
    def finished(self) -> bool:
        """Whether no later row can change the result."""
        return self._finding is not None

    def add(self, rows: Iterable[Row]) -> None:
        """Check the next rows."""
        position, digest, recorded_at = self._position, self._hash, self._recorded_at
        versions, earlier = self._versions, self._earlier
        for row in rows:
            if self._diagnosis is not None:
                self._diagnosis.add(row)
                continue
            if row.position != position + 1 or sha256(digest + row.body).digest() != row.hash:
                self._diagnose(row, position + 1)
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

    def _diagnose(self, row: Row, expected: int) -> None:
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

    def result(self, head: HeadRow) -> Finding | None:
        """The first fault, once all rows were added; None when they lead to `head`."""
        if self._finding is not None:
            return self._finding
        if self._diagnosis is not None:
            return self._diagnosis.result(head)
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
