"""The order in which what is waited for is done: timers and retries when they are due, the effects of each gateway
apart, and new processes beside old ones."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from datetime import datetime
from itertools import count
from typing import TypeAlias

from command_service.processes.agenda import Pending

_CLEAN_UP_FROM = 1_000  # entries

_Key: TypeAlias = tuple[str, int]


class Schedule:
    """What is due later. An entry is dropped some time after it is not waited for any more."""

    def __init__(self, is_waited_for: Callable[[Pending], bool]) -> None:
        self._is_waited_for = is_waited_for
        self._heap: list[tuple[datetime, int, Pending]] = []
        self._numbers = count()
        self._clean_up_at = _CLEAN_UP_FROM

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, pending: Pending, due_at: datetime) -> None:
        heapq.heappush(self._heap, (due_at, next(self._numbers), pending))
        if len(self._heap) > self._clean_up_at:
            self._heap = [entry for entry in self._heap if self._is_waited_for(entry[2])]
            heapq.heapify(self._heap)
            self._clean_up_at = 2 * len(self._heap) + _CLEAN_UP_FROM

    def take_due(self, now: datetime) -> Iterator[Pending]:
        while self._heap and self._heap[0][0] <= now:
            yield heapq.heappop(self._heap)[2]

    @property
    def next_due(self) -> datetime | None:
        return self._heap[0][0] if self._heap else None


class Lane:
    """What is due now, of one gateway or of the timers: `slots` of them at once.

    The processes that began before the runner was active are its backlog. While both wait, they and newer ones are
    started in turn: a backlog takes half of the capacity, and a new process waits for no more than its equals.
    """

    def __init__(self, slots: int) -> None:
        self._slots = slots
        self._queues: tuple[deque[Pending], deque[Pending]] = (deque(), deque())  # of the backlog, of newer processes
        self._queued: set[_Key] = set()
        self._running: set[_Key] = set()
        self._newer_next = True

    def put(self, pending: Pending, *, newer: bool) -> None:
        if _key(pending) not in self._queued:
            self._queued.add(_key(pending))
            self._queues[newer].append(pending)

    def start(self) -> Pending | None:
        """What to do next, until `finish`; None while all slots are taken, or nothing is due."""
        if len(self._running) >= self._slots:
            return None
        while self._queued:
            queue = self._queues[self._newer_next] or self._queues[not self._newer_next]
            self._newer_next = not self._newer_next
            pending = queue.popleft()
            self._queued.discard(_key(pending))
            if _key(pending) not in self._running:
                self._running.add(_key(pending))
                return pending
        return None

    def finish(self, pending: Pending) -> None:
        self._running.discard(_key(pending))


def _key(pending: Pending) -> _Key:
    """A timer that is set anew is another one, also while it fires."""
    return pending.name, pending.cause.position
