"""What operators do about one process: let it try again, answer a step in place of its gateway, or give up. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeAlias

import msgspec

from command_service.domain.decider import Decider, EventsByStream, MoreStreams, States
from command_service.processes.advance import DEFINITIONS, current_definition, definition_of
from command_service.processes.definition import ProcessDefinition
from command_service.processes.reaction import MAX_REASON, Reaction, as_stored
from shared.aggregates.process import (
    PROCESS,
    CompensationRequested,
    Process,
    ProcessEvent,
    ProcessRetried,
    TimerCancelled,
    split_process_id,
)
from shared.errors import Invalid, NotFound, OrdersError, Rejected

# --- commands ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class RetryProcess:
    """A stuck process takes in events, answers and timers again. It asks anew for what was declined."""

    process_id: str


@dataclass(frozen=True, slots=True)
class SkipStep:
    """A stuck process goes on as if the gateway had given this outcome."""

    process_id: str
    outcome: str  # one of those that the definition lists for the effect
    data: Mapping[str, Any] = field(default_factory=dict)  # of the outcome
    effect_id: str | None = None  # None: the only one without an answer, else the one that a retry would ask for


@dataclass(frozen=True, slots=True)
class SkipTimer:
    """A stuck process goes on without waiting for the timer."""

    process_id: str
    timer: str


@dataclass(frozen=True, slots=True)
class CompensateProcess:
    """A process, stuck or not, gives back what it took, and ends."""

    process_id: str


ProcessIntervention: TypeAlias = RetryProcess | SkipStep | SkipTimer | CompensateProcess

# --- refusals ------------------------------------------------------------------------------------------------------


@dataclass
class ProcessNotFound(NotFound):
    process_id: str
    code = "process-not-found"
    title = "There is no such process"

    @property
    def detail(self) -> str:
        return f"There is no process {self.process_id!r}."


@dataclass
class ProcessNotStuck(Rejected):
    """`state` is running or ended."""

    process_id: str
    state: str
    code = "process-not-stuck"
    title = "The process is not stuck"

    @property
    def detail(self) -> str:
        return f"Process {self.process_id!r} is {self.state}, not stuck."


@dataclass
class ProcessAlreadyEnded(Rejected):
    process_id: str
    outcome: str
    code = "process-ended"
    title = "The process has ended"

    @property
    def detail(self) -> str:
        return f"Process {self.process_id!r} ended: {self.outcome}."


@dataclass
class ProcessFailsAgain(Rejected):
    """Nothing changed: the process is stuck as before."""

    process_id: str
    reason: str
    code = "process-fails-again"
    title = "The process fails in the same way or another"

    @property
    def detail(self) -> str:
        return f"Process {self.process_id!r} fails again: {self.reason}"


@dataclass
class StepNotFound(Rejected):
    """`effects` have no answer, by their ids; `timers` are set."""

    process_id: str
    effects: dict[str, str]
    timers: list[str]
    code = "step-not-found"
    title = "The process does not wait for that"

    @property
    def detail(self) -> str:
        waits = [f"{name} ({effect_id})" for effect_id, name in self.effects.items()] + self.timers
        return f"Process {self.process_id!r} waits for {', '.join(waits) or 'nothing'}; name one of them."


@dataclass
class OutcomeNotOffered(Invalid):
    effect: str
    offered: list[str]
    reason: str
    code = "outcome-not-offered"
    title = "The step cannot have this outcome"

    @property
    def detail(self) -> str:
        return f"{self.effect} can be answered with {', '.join(self.offered)}: {self.reason}."


@dataclass
class NotCompensable(Rejected):
    process_id: str
    code = "process-not-compensable"
    title = "What the process did cannot be taken back"

    @property
    def detail(self) -> str:
        return f"What process {self.process_id!r} did cannot be taken back any more; retry it, or skip its step."


# --- decisions -----------------------------------------------------------------------------------------------------


def decide_over(command: ProcessIntervention, states: States, at: datetime) -> EventsByStream:
    process: Process | None = states[PROCESS.stream_of(command.process_id)]
    if process is None:
        raise ProcessNotFound(command.process_id)
    compensates = isinstance(command, CompensateProcess)
    if process.outcome is not None:
        if compensates:
            raise ProcessAlreadyEnded(command.process_id, process.outcome)
        raise ProcessNotStuck(command.process_id, "ended")
    if process.stuck is None and not compensates:
        raise ProcessNotStuck(command.process_id, "running")
    try:
        return _intervene(command, process, states, at)
    except (OrdersError, MoreStreams):
        raise
    except Exception as error:  # a defect of one process, for which it was stuck already
        raise ProcessFailsAgain(command.process_id, repr(error)[:MAX_REASON]) from error


def _intervene(command: ProcessIntervention, process: Process, states: States, at: datetime) -> EventsByStream:
    definition = definition_of(process)
    reaction = Reaction(definition, command.process_id, process.subject_id, states, at)
    view = as_stored(reaction.view())
    if isinstance(command, CompensateProcess):
        reaction.begin(view)
        reaction.record(CompensationRequested(view))
        if not definition.compensable(reaction.state):
            raise NotCompensable(command.process_id)
    else:
        reaction.record(ProcessRetried(view))
        reaction.begin(view)
    if isinstance(command, SkipTimer):
        if command.timer not in process.timers:
            raise _step_not_found(command.process_id, process)
        reaction.record(TimerCancelled(command.timer))
    elif isinstance(command, SkipStep):
        _skip(command, definition, reaction)
    reaction.run()
    return reaction.events


def _skip(command: SkipStep, definition: ProcessDefinition[Any, Any], reaction: Reaction) -> None:
    """The effect that waits for its answer, else the next one that the process asks for."""
    if command.effect_id is None and not reaction.process.effects:
        if not reaction.run_answering(lambda effect: _outcome(definition, effect, command)):
            raise _step_not_found(command.process_id, reaction.process)
        return
    reaction.run()
    waiting = reaction.process.effects
    effect_id = next(iter(waiting)) if command.effect_id is None and len(waiting) == 1 else command.effect_id
    if effect_id is None or (requested := waiting.get(effect_id)) is None:
        raise _step_not_found(command.process_id, reaction.process)
    effect = definition.message(requested.effect, requested.data)
    reaction.skip(effect_id, effect, _outcome(definition, effect, command))


def _step_not_found(process_id: str, process: Process) -> StepNotFound:
    effects = {effect_id: requested.effect for effect_id, requested in process.effects.items()}
    return StepNotFound(process_id, effects, sorted(process.timers))


def _outcome(definition: ProcessDefinition[Any, Any], effect: Any, command: SkipStep) -> Any:
    offered = {outcome.__name__: outcome for outcome in definition.effects[type(effect)]}
    name = type(effect).__name__
    if command.outcome not in offered:
        raise OutcomeNotOffered(name, [*offered], f"{command.outcome!r} is none of them")
    try:
        return msgspec.convert(command.data, offered[command.outcome])
    except msgspec.ValidationError as error:
        raise OutcomeNotOffered(name, [*offered], f"{command.outcome}: {error}") from error


def _streams(command: ProcessIntervention) -> Sequence[str]:
    kind, subject_id = split_process_id(command.process_id)
    return (current_definition(kind).subject.stream_of(subject_id),) if kind in DEFINITIONS else ()


INTERVENTIONS: Decider[ProcessIntervention, Process, ProcessEvent] = Decider(
    aggregate=PROCESS,
    commands=(RetryProcess, SkipStep, SkipTimer, CompensateProcess),
    aggregate_id=lambda command: command.process_id,
    decide=None,
    streams=_streams,
    decide_over=decide_over,
)
