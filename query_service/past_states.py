"""States of aggregates that time travel has folded before, in this process: it goes on from the nearest one.

Not the snapshots of the command service: those are of the newest versions only, and what a query shows of the past
depends on the log alone.
"""

from __future__ import annotations

from collections import OrderedDict
from datetime import datetime
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import msgspec

from query_service.point_in_time import PointInTime
from shared.aggregates.aggregate import Aggregate, PastState
from shared.eventstore.log import StoredEvent

EVERY_EVENTS = 250  # between two saved states of a stream
MAX_BYTES = 16 * 1024 * 1024  # of all saved states, as JSON
_MAX_OF_STREAM = 64

S = TypeVar("S")


class SavedState(NamedTuple):
    """A state after all events up to a version, as JSON."""

    version: int
    occurred_at: datetime  # the latest of its events
    recorded_at: datetime  # of its last event
    hash: bytes
    past: bytes


class PastStates:
    """Evicts the stream that was used longest ago. Of a stream with many saved states, it drops every second one."""

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._streams: OrderedDict[tuple[UUID, str], list[SavedState]] = OrderedDict()  # of one stream: by version

    def find(self, log_id: UUID, stream_id: str, point: PointInTime) -> SavedState | None:
        """The latest saved state at that point in time, or before it."""
        key = log_id, stream_id
        if (saved := self._streams.get(key)) is None:
            return None
        self._streams.move_to_end(key)
        return next((one for one in reversed(saved) if point.includes(one)), None)

    def save(self, log_id: UUID, event: StoredEvent, past: PastState[Any]) -> None:
        """The state after that event, unless a state near it is saved already."""
        if past.version % EVERY_EVENTS:
            return
        saved = self._streams.setdefault((log_id, event.stream_id), [])
        if saved and past.version - saved[-1].version < EVERY_EVENTS:
            return
        state = SavedState(event.version, past.last_event_at, event.recorded_at, event.hash, msgspec.json.encode(past))
        saved.append(state)
        self._bytes += len(state.past)
        if len(saved) > _MAX_OF_STREAM:
            self._drop(saved, [*saved[1::2]])
        while self._bytes > self._max_bytes:
            _, evicted = self._streams.popitem(last=False)
            self._drop(evicted, [*evicted])

    def drop(self, log_id: UUID, stream_id: str) -> None:
        """Drops what is saved of a stream."""
        if saved := self._streams.pop((log_id, stream_id), None):
            self._drop(saved, [*saved])

    def _drop(self, saved: list[SavedState], dropped: list[SavedState]) -> None:
        self._bytes -= sum(len(one.past) for one in dropped)
        saved[:] = [one for one in saved if one not in dropped]


def restore(aggregate: Aggregate[S, Any], saved: SavedState) -> PastState[S]:
    generic: Any = PastState
    past: PastState[S] = msgspec.json.decode(saved.past, type=generic[aggregate.past_type])
    return past
