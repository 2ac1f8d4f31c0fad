"""What processes wait for: effects without an answer, and timers. Folded from the log."""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

import msgspec

from shared.aggregates.process import (
    PROCESS,
    EffectAnswered,
    EffectRequested,
    ProcessEnded,
    ProcessRetried,
    ProcessStarted,
    ProcessStuck,
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

    @classmethod
    def of(cls, stored: StoredEvent) -> Cause:
        metadata = msgspec.json.decode(stored.metadata)
        return cls(stored.position, str(stored.event_id), metadata.get("correlation_id"))


class PendingEffect(NamedTuple):
    process_id: str
    code_version: int  # of the process
    requested: EffectRequested
    cause: Cause


class PendingTimer(NamedTuple):
    process_id: str
    timer: str
    due_at: datetime
    cause: Cause

    @property
    def name(self) -> str:
        return f"{self.process_id} {self.timer}"


class Agenda:
    """Apply every event of the log, in order. What a stuck process waits for is left out until it is retried."""

    def __init__(self) -> None:
        self._effects: dict[str, PendingEffect] = {}  # by effect id
        self._timers: dict[str, dict[str, PendingTimer]] = {}  # by process id and name
        self._versions: dict[str, int] = {}  # by process id, of those that have not ended
        self.stuck: set[str] = set()  # process ids

    def effects(self) -> list[PendingEffect]:
        return [effect for effect in self._effects.values() if effect.process_id not in self.stuck]

    def timers(self) -> list[PendingTimer]:
        timers = [timer for of_process in self._timers.values() for timer in of_process.values()]
        return [timer for timer in timers if timer.process_id not in self.stuck]

    def apply(self, stored: StoredEvent) -> None:
        if (process_id := PROCESS.id_of(stored.stream_id)) is None:
            return
        event = codec.decode(stored.event_type, stored.schema_version, stored.data)
        match event:
            case ProcessStarted(code_version=code_version):
                self._versions[process_id] = code_version
            case EffectRequested(effect_id):
                version = self._versions[process_id]
                self._effects[effect_id] = PendingEffect(process_id, version, event, Cause.of(stored))
            case EffectAnswered(effect_id):
                self._effects.pop(effect_id, None)
            case TimerSet(timer, due_at):
                timers = self._timers.setdefault(process_id, {})
                timers[timer] = PendingTimer(process_id, timer, due_at, Cause.of(stored))
            case TimerCancelled(timer) | TimerFired(timer):
                self._timers.get(process_id, {}).pop(timer, None)
            case ProcessStuck():
                self.stuck.add(process_id)
            case ProcessRetried():
                self.stuck.discard(process_id)
            case ProcessEnded():
                self._timers.pop(process_id, None)
                del self._versions[process_id]
            case _:
                pass
