"""What decides the commands of one aggregate."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Generic, TypeAlias, TypeVar

from shared.aggregates.aggregate import Aggregate

S = TypeVar("S")
E = TypeVar("E")
C = TypeVar("C")

States: TypeAlias = Mapping[str, Any]  # stream -> its aggregate's state; None before the first event
EventsByStream: TypeAlias = Mapping[str, Sequence[Any]]


class MoreStreams(Exception):
    """The command has to be decided on these streams as well, as the states of its streams show."""

    def __init__(self, streams: Sequence[str], usually_absent: Sequence[str] = ()) -> None:
        super().__init__(streams, usually_absent)
        self.streams = streams
        self.usually_absent = usually_absent  # as `Decider.usually_absent`


def _no_other_streams(_command: Any) -> Sequence[str]:
    return ()


def _decide_over_one_stream(command: Any, _states: States, _at: datetime) -> EventsByStream:
    raise NotImplementedError(f"{type(command).__name__} names other streams, and its decider has no `decide_over`.")


@dataclass(frozen=True, slots=True)
class Decider(Generic[C, S, E]):
    """`decide` and `decide_over` are pure. They answer the events that a command leads to (none, when it changes
    nothing that has not already happened) or raise a refusal."""

    aggregate: Aggregate[S, E]
    commands: tuple[type[C], ...]
    aggregate_id: Callable[[C], str]  # of the command's own stream
    decide: Callable[[C, S | None], Sequence[E]] | None  # None: `decide_over` decides every command
    begins: frozenset[type[C]] = frozenset()  # commands that usually find no stream yet
    # Further streams that a command is decided on. Where there are any, `decide_over` decides: it is given the state of
    # each stream, its own included, and the time at which the events occur, and answers events for any of them. They
    # are appended all or none; of a stream without events, the version is checked. It raises `MoreStreams` where only a
    # state tells which streams it needs.
    streams: Callable[[C], Sequence[str]] = _no_other_streams
    # Further streams of which most have no event: the command is decided as if they had none, and the append checks
    # that. So they cost no read, and no lock, until one of them has an event.
    usually_absent: Callable[[C], Sequence[str]] = _no_other_streams
    decide_over: Callable[[C, States, datetime], EventsByStream] = _decide_over_one_stream

    def stream_of(self, command: C) -> str:
        return self.aggregate.stream_of(self.aggregate_id(command))
