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
        self._timers: dict[tuple[str, str], PendingTimer] = {}  # by process id and name
        self.stuck: set[str] = set()  # process ids

    def effects(self) -> list[PendingEffect]:
        return [effect for effect in self._effects.values() if effect.process_id not in self.stuck]

    def timers(self) -> list[PendingTimer]:
        return [timer for timer in self._timers.values() if timer.process_id not in self.stuck]

    def oldest(self) -> int | None:
        """The position of the oldest event that something is waited for since."""
        causes = [effect.cause for effect in self._effects.values()]
        causes += [timer.cause for timer in self._timers.values()]
        return min([cause.position for cause in causes], default=None)

    def apply(self, stored: StoredEvent) -> None:
        if (process_id := PROCESS.id_of(stored.stream_id)) is None:
            return
        event = codec.decode(stored.event_type, stored.schema_version, stored.data)
        match event:
            case EffectRequested(effect_id):
                self._effects[effect_id] = PendingEffect(process_id, event, Cause.of(stored))
            case EffectAnswered(effect_id):
                self._effects.pop(effect_id, None)
            case TimerSet(timer, due_at):
                self._timers[process_id, timer] = PendingTimer(process_id, timer, due_at, Cause.of(stored))
            case TimerCancelled(timer) | TimerFired(timer):
                self._timers.pop((process_id, timer), None)
            case ProcessStuck():
                self.stuck.add(process_id)
            case ProcessRetried():
                self.stuck.discard(process_id)
            case ProcessEnded():
                for key in [key for key in self._timers if key[0] == process_id]:
                    del self._timers[key]
            case _:
                pass
