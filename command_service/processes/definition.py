"""What a kind of process is: a fold of its inputs, and what it does after each. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar, assert_never

import msgspec

from shared.aggregates.aggregate import Aggregate
from shared.aggregates.process import (
    CommandDispatched,
    CommandRefused,
    CompensationRequested,
    EffectAnswered,
    EffectRequested,
    EventReceived,
    InputEvent,
    ProcessRetried,
    ProcessStuck,
    StepSkipped,
    TimerFired,
)

S = TypeVar("S")
V = TypeVar("V")

# --- inputs: the events of its stream, with values in place of JSON ------------------------------------------------


class Received(NamedTuple, Generic[V]):
    """An event of the subject, which the process now sees as `subject`."""

    subject: V


class Dispatched(NamedTuple, Generic[V]):
    command: str
    subject: V


class Refused(NamedTuple, Generic[V]):
    command: str
    code: str
    subject: V


class Retried(NamedTuple, Generic[V]):
    """By an operator, after the process was stuck."""

    subject: V


class Compensate(NamedTuple, Generic[V]):
    """Give back what was taken, and end: an operator says so."""

    subject: V


class Requested(NamedTuple):
    effect_id: str
    effect: Any


class Answered(NamedTuple):
    effect_id: str
    effect: Any
    outcome: Any


Input: TypeAlias = (
    Received[V]
    | Dispatched[V]
    | Refused[V]
    | Retried[V]
    | Compensate[V]
    | Requested
    | Answered
    | TimerFired
    | ProcessStuck
)

# --- outputs -------------------------------------------------------------------------------------------------------


class Dispatch(NamedTuple):
    """A command of any registered decider, in the append that records the input."""

    command: Any


class Request(NamedTuple):
    """An effect, one of the definition's messages."""

    effect: Any


class SetTimer(NamedTuple):
    timer: str
    after: timedelta


class CancelTimer(NamedTuple):
    timer: str


class Stop(NamedTuple):
    """The process is stuck until an operator retries it."""

    reason: str


class End(NamedTuple):
    outcome: str


Output: TypeAlias = Dispatch | Request | SetTimer | CancelTimer | Stop | End

# -------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class ProcessDefinition(Generic[S, V]):
    """One version of one kind of process. There is one process for each subject, from the event that begins it."""

    kind: str
    subject: Aggregate[Any, Any]
    begins: frozenset[type[Any]]  # events of the subject
    view: Callable[[str, Any], V]  # of the subject (its id, its state): what the process sees of it
    view_type: type[V]
    effects: Mapping[type[Any], tuple[type[Any], ...]]  # msgspec Structs, each with the outcomes that may answer it
    evolve: Callable[[S | None, Input[V]], S]
    react: Callable[[S, Input[V]], Iterable[Output]]
    # Whether a process in this state can give back what it took: then it reacts to `Compensate` so that it ends.
    compensable: Callable[[S], bool] = lambda _: False
    version: int = 1  # raise it with a change of `evolve` or `react`, and keep the version before registered

    @cached_property
    def begin_types(self) -> frozenset[str]:
        """The names of the events that begin it."""
        return frozenset(event.__name__ for event in self.begins)

    @cached_property
    def message_types(self) -> Mapping[str, type[Any]]:
        """Effects and outcomes by name."""
        return {one.__name__: one for effect, outcomes in self.effects.items() for one in (effect, *outcomes)}

    def message(self, name: str, data: Mapping[str, Any]) -> Any:
        """The effect or outcome of that name."""
        return msgspec.convert(data, self.message_types[name])

    def read(self, event: InputEvent, effects: dict[str, Any]) -> Input[V]:
        """The input. `effects` holds those that were requested, by their ids."""
        match event:
            case EventReceived(_, _, subject):
                return Received(msgspec.convert(subject, self.view_type))
            case CommandDispatched(command, subject):
                return Dispatched(command, msgspec.convert(subject, self.view_type))
            case CommandRefused(command, code, _, subject):
                return Refused(command, code, msgspec.convert(subject, self.view_type))
            case EffectRequested(effect_id, name, data):
                effects[effect_id] = self.message(name, data)
                return Requested(effect_id, effects[effect_id])
            case EffectAnswered(effect_id, name, data):
                return Answered(effect_id, effects[effect_id], self.message(name, data))
            case StepSkipped(effect_id, name, data, outcome, outcome_data):
                effects[effect_id] = self.message(name, data)
                return Answered(effect_id, effects[effect_id], self.message(outcome, outcome_data))
            case CompensationRequested(subject):
                return Compensate(msgspec.convert(subject, self.view_type))
            case ProcessRetried(subject):
                return Retried(msgspec.convert(subject, self.view_type))
            case TimerFired() | ProcessStuck():
                return event
            case _:
                assert_never(event)
