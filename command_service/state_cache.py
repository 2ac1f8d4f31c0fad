"""The latest known state of each stream, in this process: committed, or on its way to the log."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass

from command_service.group_commit import Pending
from shared.eventstore.snapshots import LoadedState


@dataclass(slots=True)
class LatestState:
    """A state, and the request that brings its last events to the log; None once they are committed."""

    loaded: LoadedState
    pending: Pending | None = None
    ahead: int = 0  # requests that were built on each other up to this one

    @property
    def unsettled(self) -> Pending | None:
        """The request, while it is not known to be appended."""
        return None if self.pending is None or self.pending.appended else self.pending


class StateCache:
    """Evicts the state that was used longest ago. Every append checks the version, so a stale state costs a conflict
    and is never wrong."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._states: OrderedDict[str, LatestState] = OrderedDict()

    def get(self, stream_id: str) -> LatestState | None:
        """None where no state is known, or the last request failed."""
        latest = self._states.get(stream_id)
        if latest is None:
            return None
        if latest.pending is not None and latest.pending.appended is False:
            del self._states[stream_id]
            return None
        self._states.move_to_end(stream_id)
        return latest

    def put(self, stream_id: str, latest: LatestState) -> None:
        self._states[stream_id] = latest
        self._states.move_to_end(stream_id)
        if len(self._states) > self._size:
            self._states.popitem(last=False)

    def drop(self, stream_id: str) -> None:
        self._states.pop(stream_id, None)

    def clear(self) -> None:
        self._states.clear()
