"""What a projection is: pure functions from events to documents. Nothing here knows of stores, checkpoints or retries.

An author writes one module in `projector/projections/` and adds it to the registry there.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar
from uuid import UUID

import msgspec

from shared.errors import Corrupt
from shared.eventstore import codec
from shared.eventstore.feed import EVENT_LOG, Feed
from shared.read_models.keys import partition_of

E = TypeVar("E")


class RecordedEvent(msgspec.Struct, Generic[E], gc=False):
    """A row of the feed with the name of its stream parsed: `category` of the aggregate, and its id.

    `event` is decoded when it is first asked for, so that events of no interest cost little.
    """

    category: str
    aggregate_id: str
    position: int  # in the log
    stream_id: str
    version: int  # in the stream
    event_id: UUID
    event_type: str
    schema_version: int
    data: str  # JSON
    metadata: str  # JSON
    occurred_at: datetime
    recorded_at: datetime
    hash: bytes
    owner: str | None  # of the stream
    _decoded: E | None = None

    @property
    def event(self) -> E:
        """Raises what `codec.decode` raises."""
        if self._decoded is None:
            self._decoded = codec.decode(self.event_type, self.schema_version, self.data)
        return self._decoded


class Contribution(NamedTuple):
    """What a document adds to a line of a rollup: the values of the line's key, and one amount for each sum."""

    key: tuple[str, ...]
    amounts: tuple[int, ...]


# Where an index lists a document (see `shared.read_models.keys.sort_key`), or what the document adds to a rollup. When
# the document changes, the entries that it had before are taken off again.
IndexEntry: TypeAlias = str | Contribution
# Name of the index or the rollup, and the entry there. A plain tuple: four are made for every order that is written.
Entry: TypeAlias = tuple[str, IndexEntry]


@dataclass(frozen=True, slots=True)
class Rollup:
    """Sums over documents, in lines: names of the key's fields and of the sums.

    The first sum counts documents: a line where it is 0 is removed.
    """

    name: str
    key: tuple[str, ...]
    amounts: tuple[str, ...]


@dataclass
class OutOfOrder(Corrupt):
    """The log promises versions 1, 2, 3 … of a stream in order; what was read broke that promise."""

    document_id: str
    document_version: int
    event_version: int
    code = "event-out-of-order"
    title = "An event does not continue its stream"

    @property
    def detail(self) -> str:
        return f"Version {self.event_version} of {self.document_id!r} cannot follow version {self.document_version}."


class Versioned(Protocol):
    """`version` grows with every event of the document."""

    @property
    def version(self) -> int: ...


def own_stream(category: str) -> Callable[[RecordedEvent[Any]], tuple[str, ...]]:
    """A route: one document for each stream of the category, with the id of the stream."""

    def route(event: RecordedEvent[Any]) -> tuple[str, ...]:
        return (event.aggregate_id,) if event.category == category else ()

    return route


def check_next(document_id: str, document: Versioned | None, recorded: RecordedEvent[Any]) -> None:
    """Raises `OutOfOrder` unless the event is the next one of the stream that the document is folded from."""
    version = 0 if document is None else document.version
    if recorded.version != version + 1:
        raise OutOfOrder(document_id, version, recorded.version)


_encode = msgspec.json.Encoder().encode

D = TypeVar("D", bound=Versioned)
Route: TypeAlias = Callable[[RecordedEvent[Any]], Sequence[str]]


@dataclass(frozen=True, slots=True)
class Projection(Generic[D]):
    """`D` is a msgspec Struct; documents are stored as its JSON."""

    name: str
    document: type[D]
    route: Route  # ids of the documents that an event changes; none where the projection does not read the event
    apply: Callable[
        [str, D | None, RecordedEvent[Any]], D
    ]  # (document id, document so far, event); raises to stop the projection
    entries: Callable[[D], frozenset[Entry]]
    version: int = 1  # of this code: a change of what it makes of events is a new version, and a rebuild
    summary: Callable[[D], msgspec.Struct] | None = None  # what lists show of it
    rollups: tuple[Rollup, ...] = ()  # that its entries count in
    feed: Feed = EVENT_LOG  # that it is folded from

    def encode(self, document: D) -> str:
        """The document as JSON, as stores keep it."""
        return _encode(document).decode()

    def render(self, document: D) -> tuple[dict[str, str], frozenset[Entry]]:
        """The fields that stores keep of a document, and its entries."""
        fields = {"document": self.encode(document), "version": str(document.version)}
        if self.summary is not None:
            fields["summary"] = _encode(self.summary(document)).decode()
        return fields, self.entries(document)

    def part(self, partition: int, partitions: int) -> Projection[D]:
        """The same projection, for the documents of one of so many partitions only."""
        if partitions == 1:
            return self
        return self._routing(lambda document_id: partition_of(document_id, partitions) == partition)

    def only(self, document_id: str) -> Projection[D]:
        """The same projection, for one document only."""
        return self._routing(document_id.__eq__)

    def _routing(self, included: Callable[[str], bool]) -> Projection[D]:
        route = self.route
        return replace(self, route=lambda event: [*filter(included, route(event))])
