"""The memory that event streams hold for clients which have not read it yet, bounded over all streams."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from sys import getsizeof

from shared.eventstore.log import StoredEvent

MAX_BYTES = 32 * 1024 * 1024
_OVERHEAD_BYTES = 1_000  # of an event beside its texts


class HeldEvents:
    """An event that several streams hold counts once. Beyond `max_bytes`, the stream that holds the most is cut off."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._holders: dict[int, int] = {}  # number of streams, by the event's identity
        self._streams: set[HeldByStream] = set()

    @contextmanager
    def stream(self, cut_off: Callable[[], None]) -> Iterator[HeldByStream]:
        """What one stream holds, while it is open. `cut_off` closes its connection."""
        held = HeldByStream(self, cut_off)
        self._streams.add(held)
        try:
            yield held
        finally:
            self.close(held)

    def close(self, held: HeldByStream) -> None:
        if held in self._streams:
            held.release([*held.events.values()])
            self.add(-held.block_bytes)
            self._streams.remove(held)

    def hold(self, event: StoredEvent) -> None:
        holders = self._holders.get(id(event), 0)
        self._holders[id(event)] = holders + 1
        if not holders:
            self.add(size_of(event))

    def release(self, event: StoredEvent) -> None:
        holders = self._holders.pop(id(event)) - 1
        if holders:
            self._holders[id(event)] = holders
        else:
            self._bytes -= size_of(event)

    def add(self, size: int) -> None:
        self._bytes += size
        while self._bytes > self._max_bytes:
            max(self._streams, key=lambda held: held.bytes).cut()

    def is_open(self, held: HeldByStream) -> bool:
        return held in self._streams


class HeldByStream:
    """Events, and the block that is being sent. A stream that was cut off holds nothing."""

    def __init__(self, all_held: HeldEvents, cut_off: Callable[[], None]) -> None:
        self.events: dict[int, StoredEvent] = {}  # by identity
        self.bytes = 0
        self.block_bytes = 0
        self._all = all_held
        self._cut_off = cut_off

    @property
    def is_cut(self) -> bool:
        return not self._all.is_open(self)

    def cut(self) -> None:
        if not self.is_cut:
            self._all.close(self)
            self._cut_off()

    def hold(self, events: Iterable[StoredEvent]) -> None:
        for event in events:
            if self.is_cut:
                return
            self.events[id(event)] = event
            self.bytes += size_of(event)
            self._all.hold(event)

    def release(self, events: Iterable[StoredEvent]) -> None:
        for event in events:
            if self.events.pop(id(event), None) is not None:
                self.bytes -= size_of(event)
                self._all.release(event)

    @contextmanager
    def sending(self, block: bytes) -> Iterator[None]:
        """Holds a block until the client has taken it."""
        self._add_block(len(block))
        try:
            yield
        finally:
            self._add_block(-len(block))

    def _add_block(self, size: int) -> None:
        if not self.is_cut:
            self.block_bytes += size
            self.bytes += size
            self._all.add(size)


def size_of(event: StoredEvent) -> int:
    """Bytes in memory."""
    return _OVERHEAD_BYTES + getsizeof(event.data) + getsizeof(event.metadata)
