"""From a command and the states of its streams to what is appended. Pure, but for the clock and new ids."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
from uuid_utils.compat import uuid7

from command_service.domain import business_time
from command_service.domain.decider import Decider, EventsByStream
from shared.aggregates import aggregate_of
from shared.errors import Stale
from shared.eventstore import codec
from shared.eventstore.append_request import AppendRequest, NewEvent, StreamAppend
from shared.eventstore.snapshots import LoadedState
from shared.identity.caller import Caller, ForeignOwner


@dataclass
class StaleVersion(Stale):
    """`current` is the version now."""

    expected: int
    current: int
    code = "stale-version"
    title = "If-Match names another version"

    @property
    def detail(self) -> str:
        now = f"the current version is {self.current}" if self.current else "there is nothing at this address yet"
        return f"If-Match names version {self.expected}; {now}."


@dataclass
class OtherLog(Stale):
    """The log was restored since the client read: it may hold other events under that version."""

    expected: int
    code = "stale-version"
    title = "If-Match is of another log"

    @property
    def detail(self) -> str:
        return (
            f"If-Match names version {self.expected} of another log, or of this one before it was restored. Read again."
        )


@dataclass(frozen=True, slots=True)
class CommandMetadata:
    """Everything about a command that is not the command: its ids, its time, its condition, its key, its caller."""

    correlation_id: str
    causation_id: str | None = None
    traceparent: str | None = None
    occurred_at: datetime | None = None
    expected_version: int | None = None
    expected_log_id: UUID | None = None  # of which the version is; None: of any
    idempotency_key: str | None = None
    fingerprint: bytes | None = field(default=None, repr=False)  # of the request, for its idempotency key
    command_id: UUID = field(default_factory=uuid7)
    caller: Caller | None = None
    limited_to_owner: str | None = None  # what belongs to another owner counts as absent


class Decision(NamedTuple):
    """What to append, and the state of each stream that gets events after them. Their position is not known yet."""

    request: AppendRequest
    after: dict[str, LoadedState]


def streams_of(decider: Decider[Any, Any, Any], command: Any) -> tuple[str, ...]:
    """The streams that the command is decided on, its own first, each once; without those that are usually absent."""
    own = decider.stream_of(command)
    others = decider.streams(command)
    return tuple(dict.fromkeys((own, *others))) if others else (own,)


def decide(
    decider: Decider[Any, Any, Any],
    command: Any,
    metadata: CommandMetadata,
    states: Mapping[str, LoadedState],
    log_id: UUID | None,
) -> Decision:
    """Decides on the states of `streams_of` the command, in that order, and then of those that it expects to be absent.
    `log_id` is the log that they are of.

    A command that changes nothing is appended as well, without events: its expected versions are then checked and its
    idempotency key recorded like any other's. Raises what the decider refuses, `StaleVersion`, `OtherLog`,
    `ForeignOwner`, and what `business_time.check` raises.
    """
    own = decider.stream_of(command)
    if metadata.expected_log_id not in (None, log_id):
        raise OtherLog(metadata.expected_version or 0)
    if metadata.limited_to_owner is not None:
        begins = type(command) in decider.begins
        states = _reachable(states, metadata.limited_to_owner, own, begins=begins)
    if metadata.expected_version is not None and metadata.expected_version != states[own].version:
        raise StaleVersion(metadata.expected_version, states[own].version)
    now = datetime.now(UTC)
    at = business_time.occurred_at(metadata.occurred_at, now, _last_occurred_at(states))
    decided = _decide(decider, command, own, states, at)
    _check_time(metadata.occurred_at, now, own, states, decided)
    metadata_text = encode_metadata(command, metadata)
    appends, after = [], {}
    for name, loaded in states.items():
        stored: list[NewEvent] = []
        owner = None
        if events := decided.get(name):
            aggregate, state = aggregate_of(name), loaded.state
            occurred_at = at
            if aggregate.in_sequence and name != own and loaded.last_occurred_at is not None:
                occurred_at = max(at, loaded.last_occurred_at)
            if loaded.version == 0:
                owner = aggregate.owner_of(events[0])
                if aggregate.owner and owner and metadata.limited_to_owner not in (None, owner):
                    raise ForeignOwner(aggregate.owner.noun, owner)
            for event in events:
                stored.append(NewEvent(uuid7(), *codec.encode(event), metadata_text, occurred_at))
                state = aggregate.after(state, event, occurred_at)
            after[name] = loaded.after(state, len(stored), occurred_at)
        appends.append(StreamAppend(name, loaded.version, stored, owner))
    key, fingerprint = metadata.idempotency_key, metadata.fingerprint
    return Decision(AppendRequest(appends, metadata.command_id, key, fingerprint, log_id), after)


def _decide(
    decider: Decider[Any, Any, Any], command: Any, own: str, states: Mapping[str, LoadedState], at: datetime
) -> EventsByStream:
    if decider.decide is not None and len(states) == 1 and not decider.streams(command):
        return {own: decider.decide(command, states[own].state)}
    decided = decider.decide_over(command, {name: loaded.state for name, loaded in states.items()}, at)
    assert decided.keys() <= states.keys(), f"{type(command).__name__} changes a stream that it does not name"
    return decided


def _reachable(
    states: Mapping[str, LoadedState], owner_id: str, own: str, *, begins: bool
) -> Mapping[str, LoadedState]:
    """The states, without those that belong to another owner. What has no owner can be no command's `own`, but others
    may name it, as an order names stock. A command that `begins` its own stream learns that there is one."""
    return {
        name: LoadedState() if _is_foreign(name, loaded, owner_id, own, begins=begins) else loaded
        for name, loaded in states.items()
    }


def _is_foreign(name: str, loaded: LoadedState, owner_id: str, own: str, *, begins: bool) -> bool:
    if loaded.state is None or (begins and name == own):
        return False
    aggregate = aggregate_of(name)
    return (aggregate.owner is not None or name == own) and not aggregate.belongs_to(loaded.state, owner_id)


def _last_occurred_at(states: Mapping[str, LoadedState]) -> datetime | None:
    last = None
    for loaded in states.values():
        at = loaded.last_occurred_at
        if at is not None and (last is None or at > last):
            last = at
    return last


def _check_time(
    given: datetime | None, now: datetime, own: str, states: Mapping[str, LoadedState], decided: EventsByStream
) -> None:
    """Of a stream without events no time is too early: a repeated command may carry its first time."""
    if given is None:
        return
    business_time.check(given, now, None)
    for name, loaded in states.items():
        if decided.get(name) and (name == own or not aggregate_of(name).in_sequence):
            business_time.check(given, now, loaded.last_occurred_at, aggregate_of(name).backdating)


def encode_metadata(command: Any, metadata: CommandMetadata) -> str:
    """As the events of the command carry it."""
    fields: dict[str, Any] = {
        "command_id": metadata.command_id,
        "command": type(command).__name__,
        "correlation_id": metadata.correlation_id,
        "causation_id": metadata.causation_id or metadata.command_id,
    }
    if metadata.traceparent is not None:
        fields["traceparent"] = metadata.traceparent
    if metadata.caller is not None:
        fields["actor"] = metadata.caller.actor
    return msgspec.json.encode(fields).decode()
