"""The process: what one orchestration received, asked for and got answered. Its events, state and document. Pure.

The stream is `process-<kind>-<subject id>`, such as `process-fulfilment-42` of order 42. What the events mean to one
kind of process, and what it does next, is in `command_service/processes/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any, TypeAlias, assert_never, final, get_args

import msgspec

from shared.aggregates.aggregate import Aggregate, DocumentFold

Data: TypeAlias = dict[str, Any]  # the JSON object of a value that the kind of process defines


@final
class ProcessStarted(msgspec.Struct, frozen=True, gc=False):
    """The process ends under the code version that it began with."""

    kind: str
    subject_id: str
    code_version: int


@final
class EventReceived(msgspec.Struct, frozen=True):
    """The subject's event at that position of the log reached the process. `subject` is what it sees of its subject."""

    position: int
    event_type: str
    subject: Data


@final
class CommandDispatched(msgspec.Struct, frozen=True):
    """The command was carried out in the same append. `subject` is what the process sees after it."""

    command: str
    subject: Data


@final
class CommandRefused(msgspec.Struct, frozen=True):
    command: str
    code: str
    detail: str
    subject: Data


@final
class EffectRequested(msgspec.Struct, frozen=True):
    """A call to a gateway, with `effect_id` as its idempotency key."""

    effect_id: str
    effect: str
    data: Data


@final
class EffectAnswered(msgspec.Struct, frozen=True):
    effect_id: str
    outcome: str
    data: Data


@final
class TimerSet(msgspec.Struct, frozen=True, gc=False):
    """Replaces a timer of the same name."""

    timer: str
    due_at: datetime


@final
class TimerCancelled(msgspec.Struct, frozen=True, gc=False):
    timer: str


@final
class TimerFired(msgspec.Struct, frozen=True, gc=False):
    timer: str


@final
class ProcessStuck(msgspec.Struct, frozen=True, gc=False):
    """The process takes in nothing until an operator retries it."""

    reason: str


@final
class ProcessRetried(msgspec.Struct, frozen=True):
    subject: Data


@final
class StepSkipped(msgspec.Struct, frozen=True):
    """An operator answered the effect: it was asked for before, or is not asked for at all."""

    effect_id: str
    effect: str
    data: Data
    outcome: str
    outcome_data: Data


@final
class CompensationRequested(msgspec.Struct, frozen=True):
    """By an operator: the process gives back what it took, and ends."""

    subject: Data


@final
class ProcessEnded(msgspec.Struct, frozen=True, gc=False):
    outcome: str


# What a kind of process folds into a state of its own.
InputEvent = (
    EventReceived
    | CommandDispatched
    | CommandRefused
    | EffectRequested
    | EffectAnswered
    | TimerFired
    | ProcessStuck
    | ProcessRetried
    | StepSkipped
    | CompensationRequested
)
ProcessEvent = ProcessStarted | InputEvent | TimerSet | TimerCancelled | ProcessEnded

_INPUT_TYPES: dict[str, type[InputEvent]] = {event.__name__: event for event in get_args(InputEvent)}


class StoredInput(msgspec.Struct, frozen=True):
    """An `InputEvent` in a state that is written as JSON."""

    event_type: str
    data: Data

    @property
    def event(self) -> InputEvent:
        return msgspec.convert(self.data, _INPUT_TYPES[self.event_type])


@dataclass(frozen=True, slots=True)
class Process:
    """A process at one version."""

    kind: str
    subject_id: str
    code_version: int
    position: int = 0  # of the last event of the log that it received
    inputs: tuple[StoredInput, ...] = ()
    requests: int = 0  # of effects so far
    effects: Mapping[str, EffectRequested] = field(default_factory=dict)  # without an answer, by their ids
    timers: Mapping[str, datetime] = field(default_factory=dict)
    stuck: str | None = None  # why
    outcome: str | None = None  # of a process that ended


def evolve(state: Process | None, event: ProcessEvent) -> Process:
    """The state after the event."""
    if isinstance(event, ProcessStarted):
        return Process(event.kind, event.subject_id, event.code_version)
    assert state is not None, "the stream of a process begins with ProcessStarted"
    match event:
        case TimerSet(timer, due_at):
            return replace(state, timers={**state.timers, timer: due_at})
        case TimerCancelled(timer):
            return replace(state, timers=_without(state.timers, timer))
        case ProcessEnded(outcome):
            return replace(state, outcome=outcome, timers={})
        case _:
            stored = StoredInput(type(event).__name__, msgspec.to_builtins(event))
            return _evolve_input(replace(state, inputs=(*state.inputs, stored)), event)


def _evolve_input(state: Process, event: InputEvent) -> Process:
    match event:
        case EventReceived(position):
            return replace(state, position=position)
        case EffectRequested(effect_id):
            return replace(state, requests=state.requests + 1, effects={**state.effects, effect_id: event})
        case EffectAnswered(effect_id):
            return replace(state, effects=_without(state.effects, effect_id))
        case TimerFired(timer):
            return replace(state, timers=_without(state.timers, timer))
        case ProcessStuck(reason):
            return replace(state, stuck=reason)
        case StepSkipped(effect_id):
            requests = state.requests + (effect_id not in state.effects)
            return replace(state, requests=requests, effects=_without(state.effects, effect_id))
        case ProcessRetried() | CompensationRequested():
            return replace(state, stuck=None)
        case CommandDispatched() | CommandRefused():
            return state
        case _:
            assert_never(event)


def _without(mapping: Mapping[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name != key}


def process_id_of(kind: str, subject_id: str) -> str:
    return f"{kind}-{subject_id}"


def split_process_id(process_id: str) -> tuple[str, str]:
    """(kind, subject id)."""
    kind, _, subject_id = process_id.partition("-")
    return kind, subject_id


class RequestedEffect(msgspec.Struct, frozen=True):
    effect: str
    since: datetime


class ProcessDocument(msgspec.Struct, frozen=True):
    """What `GET /processes/{process_id}` answers. `state` is running, stuck or ended."""

    process_id: str
    kind: str
    subject_id: str
    code_version: int
    state: str
    outcome: str | None
    stuck: str | None  # why
    stuck_since: datetime | None
    effects: dict[str, RequestedEffect]  # that have no answer yet, by their ids
    timers: dict[str, datetime]  # when each is due
    started_at: datetime
    last_event_at: datetime
    version: int


def fold(
    process_id: str, document: ProcessDocument | None, event: ProcessEvent, version: int, at: datetime
) -> ProcessDocument:
    """The document after the event."""
    if document is None:
        assert isinstance(event, ProcessStarted), "the stream of a process begins with ProcessStarted"
        started = process_id, event.kind, event.subject_id, event.code_version, "running", None, None, None
        return ProcessDocument(*started, {}, {}, at, at, version)
    changes = _changes(document, event, at)
    return msgspec.structs.replace(document, **changes, last_event_at=max(document.last_event_at, at), version=version)


def _changes(document: ProcessDocument, event: ProcessEvent, at: datetime) -> dict[str, Any]:
    match event:
        case EffectRequested(effect_id, effect):
            return {"effects": {**document.effects, effect_id: RequestedEffect(effect, at)}}
        case EffectAnswered(effect_id) | StepSkipped(effect_id):
            return {"effects": _without(document.effects, effect_id)}
        case TimerSet(timer, due_at):
            return {"timers": {**document.timers, timer: due_at}}
        case TimerCancelled(timer) | TimerFired(timer):
            return {"timers": _without(document.timers, timer)}
        case ProcessStuck(reason):
            return {"state": "stuck", "stuck": reason, "stuck_since": at}
        case ProcessRetried() | CompensationRequested():
            return {"state": "running", "stuck": None, "stuck_since": None}
        case ProcessEnded(outcome):
            return {"state": "ended", "outcome": outcome, "effects": {}, "timers": {}}
        case _:
            return {}


PROCESS: Aggregate[Process, ProcessEvent] = Aggregate(
    category="process",
    state=Process,
    events=get_args(ProcessEvent),
    evolve=evolve,
    plural="processes",
    document_fold=DocumentFold(ProcessDocument, fold),
    max_id_length=128,  # of its kind and its subject
    for_operators=True,
    example=ProcessStarted("fulfilment", "536365", 1),
    example_id="fulfilment-536365",
)
