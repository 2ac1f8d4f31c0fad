"""What an aggregate is: the category of its streams, its events, its state, and what follows from them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar

import msgspec

Payload: TypeAlias = dict[str, Any]  # the JSON object of an older version, on its way through the upcasters
Upcaster: TypeAlias = Callable[[Payload], Payload]

S = TypeVar("S")
E = TypeVar("E")


class PastState(NamedTuple, Generic[S]):
    """The state of an aggregate after its event `version` and those before it that count. Times are business times."""

    state: S
    began_at: datetime
    last_event_at: datetime  # the latest of all
    version: int
    last_at: Mapping[str, datetime] = MappingProxyType({})  # of the last event of each type


class DocumentFold(NamedTuple):
    """Folds a document of type `document`, which has the owner's field and `version`, event by event."""

    document: type[Any]
    # (id, document so far, event, version, business time) -> the document after the event; pure
    apply: Callable[[str, Any, Any, int, datetime], Any]


class Owner(NamedTuple):
    """Whom an aggregate belongs to, for ever: `field` of its first event, one of `event`, names the owner's id."""

    noun: str
    plural: str  # in paths
    event: type[Any] | tuple[type[Any], ...]
    field: str  # of that event and of the aggregate's state
    example_id: str = "1"  # for the documentation of the HTTP API; exists after the tour of the README


@dataclass(frozen=True, slots=True)
class Aggregate(Generic[S, E]):
    """Streams are named `<category>-<id>`; an id may contain `-`, a category may not."""

    category: str
    state: type[S]  # that msgspec can write as JSON and read back
    events: tuple[type[E], ...]  # msgspec Structs; the class's name is the stored event type
    # Pure; the state is None before the first event. `evolve_at` instead of `evolve` where the state depends on when
    # the events occurred.
    evolve: Callable[[S | None, E], S] | None = None
    evolve_at: Callable[[S | None, E, datetime], S] | None = None
    versions: Mapping[type[E], int] = field(default_factory=dict)  # of the shape that is written today; 1 unless listed
    # (event, from version) -> turns a stored payload into one of the next version
    upcasters: Mapping[tuple[type[E], int], Upcaster] = field(default_factory=dict)
    # How long before the latest event of its stream an event may have occurred. Where that is not zero, time travel
    # folds the events that had occurred in the order of their recording, without those between them that had not.
    backdating: timedelta = timedelta(0)
    # Whether an event that a command on another stream brings occurs no earlier than the latest of its stream, whatever
    # time the command was given.
    in_sequence: bool = False
    # Raise it when `evolve` changes its meaning and the fields of the state stay as they are.
    snapshot_revision: int = 1
    plural: str = ""  # in paths; the category and an s unless given
    owner: Owner | None = None  # live updates can follow all aggregates of one owner
    # Renders the aggregate with this id as time travel shows it; the fields of the state unless given.
    document: Callable[[str, PastState[S]], Any] | None = None
    # Instead of the state, time travel folds this document.
    document_fold: DocumentFold | None = None
    # Raise it when the document changes its shape or meaning: entity tags name it.
    document_version: int = 1
    max_id_length: int = 64
    for_operators: bool = False  # the role `operator` reads it as well
    # For the documentation of the HTTP API: its first event, and an id that exists after the tour of the README.
    example: E | None = None
    example_id: str = "1"

    @property
    def collection(self) -> str:
        """The first part of its paths: `/<collection>/{<category>_id}`."""
        return self.plural or f"{self.category}s"

    @property
    def id_field(self) -> str:
        """The name of its id in paths and documents."""
        return f"{self.category}_id"

    @property
    def noun(self) -> str:
        """In a sentence."""
        return self.category.replace("_", " ")

    def after(self, state: S | None, event: E, at: datetime) -> S:
        """The state after the event, which occurred at that time."""
        if self.evolve_at is not None:
            return self.evolve_at(state, event, at)
        assert self.evolve is not None, "an aggregate has either evolve or evolve_at"
        return self.evolve(state, event)

    def render(self, aggregate_id: str, past: PastState[S]) -> Any:
        """The document of a past state, which msgspec can write as JSON."""
        if self.document_fold is not None:
            return past.state
        if self.document is not None:
            return self.document(aggregate_id, past)
        state = msgspec.to_builtins(past.state)
        fields = state if isinstance(state, dict) else {"state": state}
        return {self.id_field: aggregate_id, **fields, "last_event_at": past.last_event_at, "version": past.version}

    @property
    def past_type(self) -> type[Any]:
        """Of what time travel folds."""
        return self.state if self.document_fold is None else self.document_fold.document

    def owner_of(self, event: E) -> str | None:
        """The id of the owner that the event names; None where it names none."""
        if self.owner is None or not isinstance(event, self.owner.event):
            return None
        owner: str = getattr(event, self.owner.field)
        return owner

    def belongs_to(self, state: S, owner_id: str) -> bool:
        """False for an aggregate that has no owner."""
        return self.owner is not None and bool(getattr(state, self.owner.field) == owner_id)

    def stream_of(self, aggregate_id: str) -> str:
        return f"{self.category}-{aggregate_id}"

    def id_of(self, stream_id: str) -> str | None:
        """The aggregate's id; None for a stream of another category."""
        category, aggregate_id = split_stream(stream_id)
        return aggregate_id if category == self.category else None


def split_stream(stream_id: str) -> tuple[str, str]:
    """(category, id) of a stream's name; a name without `-` is of no category."""
    category, hyphen, aggregate_id = stream_id.partition("-")
    return (category, aggregate_id) if hyphen else ("", stream_id)


@dataclass(frozen=True, slots=True)
class EventType:
    """How events of one type are stored."""

    aggregate: Aggregate[Any, Any]
    event: type[Any]
    version: int  # that is written today
    upcasters: Mapping[int, Upcaster]  # by the version that they read
    decode: Callable[[str | bytes], Any]  # a payload of today's version

    @classmethod
    def of(cls, aggregate: Aggregate[Any, Any], event: type[Any]) -> EventType:
        upcasters = {version: upcast for (name, version), upcast in aggregate.upcasters.items() if name is event}
        decoder = msgspec.json.Decoder(event)
        return cls(aggregate, event, aggregate.versions.get(event, 1), upcasters, decoder.decode)
