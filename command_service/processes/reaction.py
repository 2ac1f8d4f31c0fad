"""The events of one append: what a process received, and all that follows from it. Pure."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import Any, assert_never

import msgspec

from command_service.domain import DECIDERS
from command_service.domain.decider import EventsByStream, MoreStreams, States
from command_service.processes.definition import (
    CancelTimer,
    Dispatch,
    End,
    Input,
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
    EffectRequested,
    EventReceived,
    InputEvent,
    Process,
    ProcessEnded,
    ProcessEvent,
    ProcessStuck,
    StepSkipped,
    TimerCancelled,
    TimerSet,
)
from shared.errors import OrdersError

MAX_INPUTS = 50  # that follow from one trigger; more mean that a process reacts to itself without end
MAX_REASON = 2_000  # characters of an error in an event


class TooManyReactions(RuntimeError):
    """The process gives commands without end."""


class Reaction:
    """The events of one append: what the process received, and all that follows from it."""

    def __init__(
        self, definition: ProcessDefinition[Any, Any], process_id: str, subject_id: str, states: States, at: datetime
    ) -> None:
        self._definition = definition
        self._own = PROCESS.stream_of(process_id)
        self._subject_id = subject_id
        self._subject = definition.subject.stream_of(subject_id)
        self._at = at
        self._states = dict(states)
        self.events: dict[str, list[Any]] = {}
        process: Process | None = states[self._own]
        self._effects: dict[str, Any] = {}  # by id, of all inputs
        self.state: Any = None  # of the definition
        for stored in () if process is None else process.inputs:
            self._evolve(definition.read(stored.event, self._effects))
        self._unreacted: deque[Any] = deque()
        self._answer_next: Callable[[Any], Any] | None = None  # with an outcome

    @property
    def process(self) -> Process:
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
            if self.state is not None and not isinstance(given, Requested | ProcessStuck):
                self._unreacted.append(given)

    def _evolve(self, given: Input[Any]) -> None:
        if self.state is not None or isinstance(given, Received):  # before that, the process could not begin
            self.state = self._definition.evolve(self.state, given)

    def begin(self, view: Data) -> None:
        """Of a process that could not: it failed at the event that was to begin it."""
        if self.state is None:
            self.record(EventReceived(0, min(self._definition.begin_types), view))

    def run(self) -> None:
        """Reacts until nothing more follows, or the process is stuck or ended."""
        for _ in range(MAX_INPUTS):
            if not self._unreacted or self.process.stuck is not None or self.process.outcome is not None:
                return
            for output in self._definition.react(self.state, self._unreacted.popleft()):
                self._carry_out(output)
        raise TooManyReactions(f"{self._own} gave commands {MAX_INPUTS} times in a row.")

    def run_answering(self, answer: Callable[[Any], Any]) -> bool:
        """Runs, and answers the first effect that is asked for with the outcome that `answer` makes of it. Whether
        there was one."""
        self._answer_next = answer
        self.run()
        unasked, self._answer_next = self._answer_next, None
        return unasked is None

    def _carry_out(self, output: Output) -> None:
        match output:
            case Dispatch(command):
                self._dispatch(command)
            case Request(effect):
                self._request(effect)
            case SetTimer(timer, after):
                self.record(TimerSet(timer, self._at + after))
            case CancelTimer(timer):
                if timer in self.process.timers:
                    self.record(TimerCancelled(timer))
            case Stop(reason):
                self.record(ProcessStuck(reason[:MAX_REASON]))
            case End(outcome):
                self.record(ProcessEnded(outcome))
            case _:
                assert_never(output)

    def _request(self, effect: Any) -> None:
        effect_id = f"{PROCESS.id_of(self._own)}-{self.process.requests + 1}"
        if self._answer_next is None:
            self.record(EffectRequested(effect_id, type(effect).__name__, as_stored(effect)))
        else:
            outcome, self._answer_next = self._answer_next(effect), None
            self.skip(effect_id, effect, outcome)

    def skip(self, effect_id: str, effect: Any, outcome: Any) -> None:
        """The effect counts as answered."""
        names = type(effect).__name__, type(outcome).__name__
        self.record(StepSkipped(effect_id, names[0], as_stored(effect), names[1], as_stored(outcome)))

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
            self.record(CommandRefused(name, error.code, error.detail[:MAX_REASON], as_stored(self.view())))
            return
        for stream, events in decided.items():
            for event in events:
                self._append(stream, event)
        self.record(CommandDispatched(name, as_stored(self.view())))

    def _append(self, stream: str, event: Any) -> None:
        self._states[stream] = aggregate_of(stream).after(self._states[stream], event, self._at)
        self.events.setdefault(stream, []).append(event)


def as_stored(value: msgspec.Struct) -> Data:
    """As it is read back from the log."""
    data: Data = msgspec.json.decode(msgspec.json.encode(value))
    return data
