"""What the verification of a read model demands of its store."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from typing import NamedTuple, Protocol, TypeAlias

from shared.read_models.poison import Poison

IndexMember: TypeAlias = tuple[str, str]  # name of an index, and the entry there


class Inspected(NamedTuple):
    """What a store keeps of some documents, and which of some entries it lists, all as of `position`."""

    position: int
    documents: dict[str, dict[str, str]]  # id -> fields
    parked: dict[str, Poison]
    members: set[IndexMember]


class RollupLines(NamedTuple):
    """The lines of a rollup: key -> sums, as of these positions of all partitions, in order."""

    positions: Sequence[int]
    lines: dict[tuple[str, ...], tuple[int, ...]]


class Inspection(Protocol):
    """One partition of a generation, read for its verification. Every method raises what is in `store.UNAVAILABLE`."""

    @property
    def fields(self) -> Collection[str]:
        """That the store keeps of a document."""
        ...

    async def read(self, document_ids: Sequence[str], members: Sequence[IndexMember]) -> Inspected:
        """In one step."""
        ...

    def document_ids(self, page: int) -> AsyncIterator[list[str]]:
        """Of every document, about `page` at a time; one that is written meanwhile may be left out."""
        ...

    def members(self, page: int) -> AsyncIterator[list[IndexMember]]:
        """Every entry of every index, in the same way."""
        ...

    async def lines(self, rollup: str) -> RollupLines:
        """In one step, of all partitions of the generation."""
        ...
