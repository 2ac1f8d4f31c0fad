"""The command that advances a process. It decides the reaction to one trigger together with the events of the commands
that the process gives: all of them are one append (decision 52). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, assert_never

from command_service.domain.decider import Decider, EventsByStream, States
from command_service.processes.definition import (
    ProcessDefinition,
)
from command_service.processes.reaction import MAX_REASON, Reaction, as_stored
from shared.aggregates.process import (
    PROCESS,
    Data,
    EffectAnswered,
    EventReceived,
    Process,
    ProcessEvent,
    ProcessStarted,
    ProcessStuck,
    TimerFired,
    process_id_of,
)

DEFINITIONS: dict[str, dict[int, ProcessDefinition[Any, Any]]] = {}  # by kind and version


class SubjectChanged(NamedTuple):
    """An event of the subject is in the log."""

    position: int
    event_type: str


class Answer(NamedTuple):
    effect_id: str
    outcome: Any


class TimerDue(NamedTuple):
    timer: str


class Failed(NamedTuple):
    """A trigger could not be reacted to, or an effect, which is then named, gets no answer."""

    reason: str
    effect_id: str | None = None


Trigger = SubjectChanged | Answer | TimerDue | Failed


@dataclass(frozen=True, slots=True)
class AdvanceProcess:
    kind: str
    subject_id: str
    trigger: Trigger

    @property
    def process_id(self) -> str:
        return process_id_of(self.kind, self.subject_id)


def current_definition(kind: str) -> ProcessDefinition[Any, Any]:
    """That new processes begin with."""
    versions = DEFINITIONS[kind]
    return versions[max(versions)]


def decide_over(command: AdvanceProcess, states: States, at: datetime) -> EventsByStream:
    """Nothing for a trigger that the process has reacted to, or does not wait for."""
    own = PROCESS.stream_of(command.process_id)
    process: Process | None = states[own]
    if isinstance(command.trigger, Failed):  # its subject, its inputs or its version may be what fails
        return _fail(command, own, process, command.trigger)
    definition = current_definition(command.kind) if process is None else definition_of(process)
    if states[definition.subject.stream_of(command.subject_id)] is None:
        return {}
    reaction = Reaction(definition, command.process_id, command.subject_id, states, at)
    for event in _begin(command, process, definition, as_stored(reaction.view()), at):
        reaction.record(event)
    reaction.run()
    return reaction.events


def _fail(command: AdvanceProcess, own: str, process: Process | None, failed: Failed) -> EventsByStream:
    stuck = ProcessStuck(failed.reason[:MAX_REASON])
    if process is None:  # it could not even begin
        return {
            own: [ProcessStarted(command.kind, command.subject_id, current_definition(command.kind).version), stuck]
        }
    fails = process.outcome is None and process.stuck is None
    return {own: [stuck]} if fails and (failed.effect_id is None or failed.effect_id in process.effects) else {}


def definition_of(process: Process) -> ProcessDefinition[Any, Any]:
    """That the process began with."""
    return DEFINITIONS[process.kind][process.code_version]


def _begin(
    command: AdvanceProcess,
    process: Process | None,
    definition: ProcessDefinition[Any, Any],
    view: Data,
    at: datetime,
) -> Sequence[ProcessEvent]:
    trigger = command.trigger
    assert not isinstance(trigger, Failed), "decided already"
    if process is None:
        return _start(command, definition, view)
    if process.outcome is not None or process.stuck is not None:
        return ()
    match trigger:
        case SubjectChanged(position, event_type):
            seen = position <= process.position or view == _last_view(process)
            return () if seen else (EventReceived(position, event_type, view),)
        case Answer(effect_id, outcome):
            name, data = type(outcome).__name__, as_stored(outcome)
            return (EffectAnswered(effect_id, name, data),) if effect_id in process.effects else ()
        case TimerDue(timer):
            due_at = process.timers.get(timer)
            return () if due_at is None or due_at > at else (TimerFired(timer),)
        case _:
            assert_never(trigger)


def _start(command: AdvanceProcess, definition: ProcessDefinition[Any, Any], view: Data) -> Sequence[ProcessEvent]:
    trigger = command.trigger
    if not isinstance(trigger, SubjectChanged) or trigger.event_type not in definition.begin_types:
        return ()
    started = ProcessStarted(command.kind, command.subject_id, definition.version)
    return (started, EventReceived(trigger.position, trigger.event_type, view))


def _last_view(process: Process) -> Any:
    views = (stored.data["subject"] for stored in reversed(process.inputs) if "subject" in stored.data)
    return next(views, None)


def _streams(command: AdvanceProcess) -> Sequence[str]:
    if isinstance(command.trigger, Failed):
        return ()
    return (current_definition(command.kind).subject.stream_of(command.subject_id),)


PROCESSES: Decider[AdvanceProcess, Process, ProcessEvent] = Decider(
    aggregate=PROCESS,
    commands=(AdvanceProcess,),
    aggregate_id=lambda command: command.process_id,
    decide=None,
    streams=_streams,
    decide_over=decide_over,
)
