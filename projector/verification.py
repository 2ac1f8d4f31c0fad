"""Compares a read model with the log, while both move: every document, index entry and line of a rollup.

The log is folded again (`projector.refold`), partition by partition, up to the very checkpoint that the store reports
together with what is compared. Nothing here uses the engine, its batches or its cache.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Generic, TypeAlias

import msgspec

from projector.projection import D, Projection
from projector.refold import Lines, Refold, open_refold
from projector.stores.inspection import IndexMember, Inspected, Inspection
from shared.eventstore import log as event_log
from shared.read_models.poison import Poison

MAX_SHOWN = 10
PAGE = 500  # documents or entries compared in one step
PAGE_BYTES = 2 * 2**20  # of documents compared in one step, as folded
UNKNOWN_PAGE = 8  # documents that the fold does not have, compared in one step: of those, no size is known
MAX_SHOWN_CHARACTERS = 2_000  # of a document

Report: TypeAlias = Callable[[str, int, int], None]  # (what is done, how many of them so far, of how many)


def ignore(what: str, done: int, total: int) -> None:
    """Reports nothing."""


class CheckpointMovedBack(Exception):
    """The checkpoint is lower than before: the read model was emptied or restored while it was compared."""

    def __init__(self) -> None:
        super().__init__("the read model was emptied or restored meanwhile; compare again")


@dataclass(slots=True)
class Comparison:
    """How many documents were compared, up to which position of the log, and in what they differ."""

    position: int = 0
    compared: int = 0
    differences: int = 0
    parked: int = 0  # documents that stop before an event that could not be applied: they differ, and why is known
    shown: list[str] = field(default_factory=list)  # the first of them

    def differs(self, what: str) -> None:
        self.differences += 1
        if len(self.shown) < MAX_SHOWN:
            self.shown.append(what)

    def is_parked(self, poison: Poison) -> None:
        self.parked += 1
        self.differs(
            f"document {poison.document_id} is parked before position {poison.position}, a {poison.event_type}:"
            f" {poison.error}"
        )

    def __str__(self) -> str:
        parked = f", {self.parked} documents are parked" if self.parked else ""
        return f"{self.compared} documents compared, {self.differences} differences{parked}" + "".join(
            f"\n  {what}" for what in self.shown
        )


async def compare(
    log: event_log.Connection,
    projection: Projection[Any],
    inspections: Sequence[Inspection],
    report: Report = ignore,
) -> Comparison:
    """`inspections` are those of each partition.

    Raises what stores and the log raise, `PoisonEvent` and `CheckpointMovedBack`.
    """
    comparison = Comparison()
    count = len(inspections)
    with ExitStack() as stack:
        partitions = [
            _Partition(log, part, stack.enter_context(open_refold(part, count)), inspection, comparison, report)
            for part, inspection in (
                (projection.part(number, count), inspection) for number, inspection in enumerate(inspections)
            )
        ]
        for number, partition in enumerate(partitions, start=1):
            await partition.compare()
            report("finding others", number, len(partitions))
        for rollup in projection.rollups:
            await _compare_lines(rollup.name, partitions, comparison)
    return comparison


class _Partition(Generic[D]):
    """One partition of the read model, and the fold that it has to be equal to."""

    def __init__(
        self,
        log: event_log.Connection,
        projection: Projection[D],
        refold: Refold[D],
        inspection: Inspection,
        comparison: Comparison,
        report: Report,
    ) -> None:
        self.inspection = inspection
        self.refold = refold
        self._log = log
        self._projection = projection
        self._comparison = comparison
        self._report = report
        self._parked: set[IndexMember] = set()  # entries of parked documents, which are as of their poison

    async def compare(self) -> None:
        await self.fold_to((await self.inspection.read([], [])).position, reported=True)
        done, total = 0, self.refold.count()
        self._report("comparing", done, total)
        for document_ids in self.refold.pages(PAGE, PAGE_BYTES):
            await self._compare_page(document_ids)
            done += len(document_ids)
            self._report("comparing", done, max(done, total))
        async for document_ids in self.inspection.document_ids(PAGE):
            await self._find_unknown_documents(document_ids)
        async for members in self.inspection.members(PAGE):
            await self._find_unknown_members(members)

    async def fold_to(self, position: int, *, reported: bool = False) -> set[str]:
        """The ids of the documents that changed on the way; none where it is `reported`: they may be
        millions."""
        if position < self.refold.position:
            raise CheckpointMovedBack
        changed: set[str] = set()
        start = self.refold.position
        while (at := self.refold.position) < position:
            if reported:
                self._report("folding", at - start, position - start)
            events = await event_log.read_batch(
                self._log, at, min(event_log.PAGE, position - at), feed=self._projection.feed
            )
            if not events:
                raise CheckpointMovedBack
            some = self.refold.apply(events)
            if not reported:
                changed |= some
        if reported and position > start:
            self._report("folding", position - start, position - start)
        self._comparison.position = max(self._comparison.position, position)
        return changed

    async def _compare_page(self, document_ids: Sequence[str]) -> None:
        """Those that change between fold and store are compared again."""
        while document_ids:
            documents = {document_id: self.refold.document(document_id) for document_id in document_ids}
            wanted = {document_id: self._members(document) for document_id, document in documents.items()}
            found = await self.inspection.read(document_ids, [*frozenset().union(*wanted.values())])
            changed = await self.fold_to(found.position)
            for document_id, document in documents.items():
                if document_id not in changed:
                    self._compare_one(document_id, document, wanted[document_id], found)
            document_ids = [document_id for document_id in document_ids if document_id in changed]

    def _members(self, document: D | None) -> frozenset[IndexMember]:
        if document is None:
            return frozenset()
        return frozenset((name, entry) for name, entry in self._projection.entries(document) if isinstance(entry, str))

    def _compare_one(
        self, document_id: str, document: D | None, wanted: frozenset[IndexMember], found: Inspected
    ) -> None:
        self._comparison.compared += document is not None
        stored = found.documents.get(document_id, {})
        if (poison := found.parked.get(document_id)) is not None:
            self._comparison.is_parked(poison)
            if "document" in stored:
                self._parked |= self._members(msgspec.json.decode(stored["document"], type=self._projection.document))
            return
        expected = {} if document is None else self._projection.render(document)[0]
        kept = {name: value for name, value in expected.items() if name in self.inspection.fields}
        if not _same_fields(stored, kept):
            self._comparison.differs(
                f"document {document_id} is {_shown(stored) or 'not there'}, the log says {_shown(kept) or 'it is not'}"
            )
        if missing := wanted - found.members:
            self._comparison.differs(f"document {document_id} is not listed in {sorted(missing)}")

    async def _find_unknown_documents(self, document_ids: Sequence[str]) -> None:
        unknown = [document_id for document_id in document_ids if not self.refold.has_document(document_id)]
        for first in range(0, len(unknown), UNKNOWN_PAGE):
            found = await self.inspection.read(unknown[first : first + UNKNOWN_PAGE], [])
            await self.fold_to(found.position)
            for document_id in found.documents:
                if not self.refold.has_document(document_id):
                    self._comparison.differs(
                        f"document {document_id} is there, the log does not know it or it belongs to another partition"
                    )

    async def _find_unknown_members(self, members: Sequence[IndexMember]) -> None:
        unknown = [member for member in members if not self.refold.has_entry(*member) and member not in self._parked]
        if not unknown:
            return
        found = await self.inspection.read([], unknown)
        await self.fold_to(found.position)
        for name, entry in sorted(found.members):
            if not self.refold.has_entry(name, entry):
                self._comparison.differs(f"list {name} holds {entry}, where no document belongs")


async def _compare_lines(rollup: str, partitions: Sequence[_Partition[Any]], comparison: Comparison) -> None:
    """All partitions count in the same lines."""
    positions, stored = await partitions[0].inspection.lines(rollup)
    expected: Lines = {}
    for partition, position in zip(partitions, positions, strict=True):
        await partition.fold_to(position)
        for key, sums in partition.refold.lines[rollup].items():
            expected[key] = tuple(map(sum, zip(sums, expected.get(key, (0,) * len(sums)), strict=True)))
    for key in sorted(stored.keys() | expected.keys()):
        if stored.get(key) != expected.get(key):
            comparison.differs(f"line {key} is {stored.get(key)}, the log says {expected.get(key)}")


def _shown(fields: Mapping[str, str]) -> str:
    """What there is, not longer than is worth showing; empty where there is nothing."""
    text = str(fields) if fields else ""
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}…"


def _same_fields(stored: Mapping[str, str], expected: Mapping[str, str]) -> bool:
    """Whether fields hold the same JSON."""
    try:
        found = {name: json.loads(value) for name, value in stored.items()}
    except ValueError:
        return False
    return found == {name: json.loads(value) for name, value in expected.items()}
