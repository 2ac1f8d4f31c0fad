"""The latest known state of each stream, in this process: committed, or on its way to the log."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

import msgspec

from command_service.append_queue import Pending
from shared.eventstore.snapshots import LoadedState

# What a state takes in memory, from the length of its JSON: the objects of an order take two to five times as much.
_OVERHEAD_BYTES = 1_000
_OBJECT_BYTES = 6  # for a character


@dataclass(slots=True)
class LatestState:
    """A state, and the request that brings its last events to the log; None once they are committed."""

    loaded: LoadedState
    pending: Pending | None = None
    ahead: int = 0  # requests that were built on each other up to this one
    size: int = 0  # of its JSON, at most, in characters
    measured: int = 0  # its size when it was last measured

    @property
    def unsettled(self) -> Pending | None:
        """The request, while it is not known to be appended."""
        return None if self.pending is None or self.pending.appended else self.pending


class StateCache:
    """Evicts the state that was used longest ago. Every append checks the version, so a stale state costs a conflict
    and is never wrong."""

    def __init__(self, max_bytes: int) -> None:
        self.bytes = 0  # of memory, at most
        self._max_bytes = max_bytes
        self._states: OrderedDict[str, LatestState] = OrderedDict()

    def __len__(self) -> int:
        return len(self._states)

    def get(self, stream_id: str) -> LatestState | None:
        """None where no state is known, or the last request failed."""
        latest = self._states.get(stream_id)
        if latest is None:
            return None
        if latest.pending is not None and latest.pending.appended is False:
            self.drop(stream_id)
            return None
        self._states.move_to_end(stream_id)
        return latest

    def put(self, stream_id: str, latest: LatestState, added: int) -> None:
        """`added` characters of JSON are its events since the state that is cached, or since its stream began."""
        before = self._states.get(stream_id)
        if before is not None:
            self.drop(stream_id)
            latest.size, latest.measured = before.size + added, before.measured
        elif latest.loaded.position == 0:  # no event of the stream was in the log
            latest.size = latest.measured = added
        if latest.size > 2 * latest.measured + _OVERHEAD_BYTES or not latest.size:
            latest.size = latest.measured = len(msgspec.json.encode(latest.loaded.state))
        self._states[stream_id] = latest
        self.bytes += _memory(latest)
        while self.bytes > self._max_bytes:
            _, evicted = self._states.popitem(last=False)
            self.bytes -= _memory(evicted)

    def drop(self, stream_id: str) -> None:
        if (dropped := self._states.pop(stream_id, None)) is not None:
            self.bytes -= _memory(dropped)

    def clear(self) -> None:
        self._states.clear()
        self.bytes = 0


def _memory(latest: LatestState) -> int:
    return _OVERHEAD_BYTES + _OBJECT_BYTES * latest.size
