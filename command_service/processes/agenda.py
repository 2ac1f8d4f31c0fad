"""What processes wait for: effects without an answer, and timers. Folded from the log."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import NamedTuple, TypeAlias

import msgspec

from shared.aggregates.process import (
    PROCESS,
    CompensationRequested,
    EffectAnswered,
    EffectRequested,
    EventReceived,
    ProcessEnded,
    ProcessEvent,
    ProcessRetried,
    ProcessStarted,
    ProcessStuck,
    StepSkipped,
    TimerCancelled,
    TimerFired,
    TimerSet,
)
from shared.eventstore import codec
from shared.eventstore.log import StoredEvent


class Cause(NamedTuple):
    """The event that leads to a trigger, and the correlation id that goes on with it."""

    position: int
    event_id: str
    correlation_id: str | None
    recorded_at: datetime

    @classmethod
    def of(cls, stored: StoredEvent) -> Cause:
        metadata = msgspec.json.decode(stored.metadata)
        return cls(stored.position, str(stored.event_id), metadata.get("correlation_id"), stored.recorded_at)


class PendingEffect(NamedTuple):
    process_id: str
    code_version: int  # of the process
    requested: EffectRequested
    cause: Cause

    @property
    def name(self) -> str:
        return self.requested.effect_id


class PendingTimer(NamedTuple):
    process_id: str
    timer: str
    due_at: datetime
    cause: Cause

    @property
    def name(self) -> str:
        return f"{self.process_id} {self.timer}"


Pending: TypeAlias = PendingEffect | PendingTimer


class Waiting(msgspec.Struct):
    """A process that has not ended, and what it waits for."""

    process_id: str
    code_version: int
    begun_by: int = 0  # the position of the event that began it
    effects: dict[str, PendingEffect] = {}  # by effect id
    timers: dict[str, PendingTimer] = {}  # by name
    stuck: bool = False

    def pending(self) -> Sequence[Pending]:
        return [] if self.stuck else [*self.effects.values(), *self.timers.values()]


class Agenda:
    """Apply the events of the log, in order. What a stuck process waits for is left out until it is retried."""

    def __init__(self, waiting: Iterable[Waiting] = ()) -> None:
        self.processes = {one.process_id: one for one in waiting}  # that have not ended
        self.changed: set[str] = set()  # process ids

    @property
    def stuck(self) -> list[str]:
        return [process_id for process_id, one in self.processes.items() if one.stuck]

    def pending(self) -> list[Pending]:
        return [pending for one in self.processes.values() for pending in one.pending()]

    def effects(self) -> list[PendingEffect]:
        return [pending for pending in self.pending() if isinstance(pending, PendingEffect)]

    def timers(self) -> list[PendingTimer]:
        return [pending for pending in self.pending() if isinstance(pending, PendingTimer)]

    def has(self, pending: Pending) -> bool:
        """Whether it is still waited for."""
        process = self.processes.get(pending.process_id)
        if process is None or process.stuck:
            return False
        if isinstance(pending, PendingEffect):
            return pending.name in process.effects
        return process.timers.get(pending.timer) == pending

    def apply(self, stored: StoredEvent) -> Sequence[Pending]:
        """What is waited for from now on."""
        if (process_id := PROCESS.id_of(stored.stream_id)) is None:
            return ()
        event = codec.decode(stored.event_type, stored.schema_version, stored.data)
        if isinstance(event, ProcessStarted):
            self.processes[process_id] = Waiting(process_id, event.code_version)
        if (process := self.processes.get(process_id)) is None:
            return ()
        self.changed.add(process_id)
        if isinstance(event, ProcessEnded):
            del self.processes[process_id]
            return ()
        return _apply(process, event, stored)


def _apply(process: Waiting, event: ProcessEvent, stored: StoredEvent) -> Sequence[Pending]:
    match event:
        case EventReceived(position):
            process.begun_by = process.begun_by or position
        case EffectRequested(effect_id):
            requested = PendingEffect(process.process_id, process.code_version, event, Cause.of(stored))
            process.effects[effect_id] = requested
            return (requested,)
        case EffectAnswered(effect_id) | StepSkipped(effect_id):
            process.effects.pop(effect_id, None)
        case TimerSet(timer, due_at):
            process.timers[timer] = PendingTimer(process.process_id, timer, due_at, Cause.of(stored))
            return (process.timers[timer],)
        case TimerCancelled(timer) | TimerFired(timer):
            process.timers.pop(timer, None)
        case ProcessStuck():
            process.stuck = True
        case ProcessRetried() | CompensationRequested():
            process.stuck = False
            return process.pending()
        case _:
            pass
    return ()
