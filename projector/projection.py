"""What a projection is: pure functions from events to documents. Nothing here knows of stores, checkpoints or retries.

An author writes one module in `projector/projections/` and adds it to the registry there.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Generic, NamedTuple, Protocol, TypeAlias, TypeVar

import msgspec

from shared.errors import Corrupt
from shared.read_models.keys import partition_of

E = TypeVar("E")


class Recorded(msgspec.Struct, Generic[E], frozen=True, gc=False):
    """An event and where it stands: `version` in its stream, `position` in the log; when it happened."""

    event: E
    version: int
    position: int
    occurred_at: datetime


class Share(NamedTuple):
    """What a document adds to a line of sums: the values of the line's key, and an amount for each of its sums."""

    key: tuple[str, ...]
    amounts: tuple[int, ...]


# Where a document is listed in an index (see `shared.read_models.keys.place_of`), or what it adds to sums. When the
# document changes, what it added before is taken off again.
Place: TypeAlias = str | Share
# Name of the index or the sums, and the place there. A plain tuple: four are made for every order that is written.
Entry: TypeAlias = tuple[str, Place]


@dataclass(frozen=True, slots=True)
class Sums:
    """Names of the fields of a line of sums. The first sum counts documents: at 0 the line is gone."""

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
    @property
    def version(self) -> int: ...


D = TypeVar("D", bound=Versioned)


@dataclass(frozen=True, slots=True)
class Projection(Generic[D]):
    """`D` is a msgspec Struct; documents are kept as its JSON."""

    name: str
    document: type[D]
    document_id: Callable[[str], str | None]  # of a stream; None: this projection does not read that stream
    partition_key: Callable[[str], str | None]  # of a stream; the same for all streams of one document
    apply: Callable[
        [str, D | None, Recorded[Any]], D
    ]  # (document id, document so far, event); raises to stop the projection
    entries: Callable[[D], frozenset[Entry]]
    version: int = 1  # of this code: a change of what it makes of events is a new version, and a rebuild
    summary: Callable[[D], msgspec.Struct] | None = None  # what lists show of it
    sums: tuple[Sums, ...] = ()  # that its entries count in

    def part(self, partition: int, partitions: int) -> Projection[D]:
        """The same projection, reading the streams of one of so many partitions only."""
        if partitions == 1:
            return self

        def document_id(stream_id: str) -> str | None:
            key = self.partition_key(stream_id)
            if key is None or partition_of(key, partitions) != partition:
                return None
            return self.document_id(stream_id)

        return replace(self, document_id=document_id)
