"""The command that advances a process. It decides the reaction to one trigger together with the events of the commands
that the process gives: all of them are one append (decision 52). Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, assert_never

import msgspec

from command_service.domain import DECIDERS
from command_service.domain.decider import Decider, EventsByStream, MoreStreams, States
from command_service.processes.definition import (
    CancelTimer,
    Dispatch,
    End,
    Output,
    ProcessDefinition,
    Received,
    Request,
    Requested,
    SetTimer,
    Stop,
)
from shared.aggregates import aggregate_of
from shared.aggregates.process import (
    PROCESS,
    CommandDispatched,
    CommandRefused,
    Data,
    EffectAnswered,
    EffectRequested,
    EventReceived,
    InputEvent,
    Process,
    ProcessEnded,
    ProcessEvent,
    ProcessRetried,
    ProcessStarted,
    ProcessStuck,
    TimerCancelled,
    TimerFired,
    TimerSet,
    process_id_of,
)
from shared.errors import OrdersError

MAX_INPUTS = 50  # that follow from one trigger; more mean that a process reacts to itself without end
MAX_REASON = 2_000  # characters of an error in an event

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


class Retry(NamedTuple):
    pass


Trigger = SubjectChanged | Answer | TimerDue | Failed | Retry


@dataclass(frozen=True, slots=True)
class AdvanceProcess:
    kind: str
    subject_id: str
    trigger: Trigger

    @property
    def process_id(self) -> str:
        return process_id_of(self.kind, self.subject_id)


class TooManyReactions(RuntimeError):
    """The process gives commands without end."""


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
    definition = current_definition(command.kind) if process is None else _definition_of(process)
    if states[definition.subject.stream_of(command.subject_id)] is None:
        return {}
    reaction = _Reaction(definition, command, states, at)
    for event in _begin(command, process, definition, _data(reaction.view()), at):
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


def _definition_of(process: Process) -> ProcessDefinition[Any, Any]:
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
    if process.outcome is not None or (process.stuck is None) is isinstance(trigger, Retry):
        return ()
    match trigger:
        case Retry() if not process.position:  # it could not begin: it received nothing
            return (ProcessRetried(view), EventReceived(0, min(definition.begin_types), view))
        case Retry():
            return (ProcessRetried(view),)
        case SubjectChanged(position, event_type):
            seen = position <= process.position or view == _last_view(process)
            return () if seen else (EventReceived(position, event_type, view),)
        case Answer(effect_id, outcome):
            name, data = type(outcome).__name__, _data(outcome)
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


def _data(value: msgspec.Struct) -> Data:
    """As it is read back from the log."""
    data: Data = msgspec.json.decode(msgspec.json.encode(value))
    return data


class _Reaction:
    """The events of one append: what the process received, and all that follows from it."""

    def __init__(
        self, definition: ProcessDefinition[Any, Any], command: AdvanceProcess, states: States, at: datetime
    ) -> None:
        self._definition = definition
        self._own = PROCESS.stream_of(command.process_id)
        self._subject_id = command.subject_id
        self._subject = definition.subject.stream_of(command.subject_id)
        self._at = at
        self._states = dict(states)
        self.events: dict[str, list[Any]] = {}
        process: Process | None = states[self._own]
        self._effects: dict[str, Any] = {}  # by id, of all inputs
        self._state: Any = None  # of the definition
        self._unreacted: deque[Any] = deque()
        for stored in () if process is None else process.inputs:
            self._evolve(definition.read(stored.event, self._effects))

    @property
    def _process(self) -> Process:
        process = self._states[self._own]
        assert isinstance(process, Process), "its stream begins with the event that says so"
        return process

    def view(self) -> msgspec.Struct:
        """What the process sees of its subject now."""
        seen: msgspec.Struct = self._definition.view(self._subject_id, self._states[self._subject])
        return seen

    def record(self, event: ProcessEvent) -> None:
        self._append(self._own, event)
        if isinstance(event, InputEvent):
            given = self._definition.read(event, self._effects)
            self._evolve(given)
            if self._state is not None and not isinstance(given, Requested | ProcessStuck):
                self._unreacted.append(given)

    def _evolve(self, given: Any) -> None:
        if self._state is not None or isinstance(given, Received):  # before that, the process could not begin
            self._state = self._definition.evolve(self._state, given)

    def run(self) -> None:
        """Reacts until nothing more follows, or the process is stuck or ended."""
        for _ in range(MAX_INPUTS):
            if not self._unreacted or self._process.stuck is not None or self._process.outcome is not None:
                return
            for output in self._definition.react(self._state, self._unreacted.popleft()):
                self._carry_out(output)
        raise TooManyReactions(f"{self._own} gave commands {MAX_INPUTS} times in a row.")

    def _carry_out(self, output: Output) -> None:
        match output:
            case Dispatch(command):
                self._dispatch(command)
            case Request(effect):
                effect_id = f"{PROCESS.id_of(self._own)}-{self._process.requests + 1}"
                self.record(EffectRequested(effect_id, type(effect).__name__, _data(effect)))
            case SetTimer(timer, after):
                self.record(TimerSet(timer, self._at + after))
            case CancelTimer(timer):
                if timer in self._process.timers:
                    self.record(TimerCancelled(timer))
            case Stop(reason):
                self.record(ProcessStuck(reason[:MAX_REASON]))
            case End(outcome):
                self.record(ProcessEnded(outcome))
            case _:
                assert_never(output)

    def _dispatch(self, command: Any) -> None:
        """Raises `MoreStreams` for what the command is decided on."""
        name = type(command).__name__
        decider = DECIDERS[type(command)]
        own, others = decider.stream_of(command), decider.streams(command)
        if missing := [stream for stream in (own, *others) if stream not in self._states]:
            raise MoreStreams(missing)
        try:
            if decider.decide is not None and not others:
                decided: EventsByStream = {own: decider.decide(command, self._states[own])}
            else:
                decided = decider.decide_over(command, self._states, self._at)
        except OrdersError as error:
            self.record(CommandRefused(name, error.code, error.detail[:MAX_REASON], _data(self.view())))
            return
        for stream, events in decided.items():
            for event in events:
                self._append(stream, event)
        self.record(CommandDispatched(name, _data(self.view())))

    def _append(self, stream: str, event: Any) -> None:
        self._states[stream] = aggregate_of(stream).after(self._states[stream], event, self._at)
        self.events.setdefault(stream, []).append(event)


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
