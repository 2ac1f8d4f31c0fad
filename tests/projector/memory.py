"""A log and a store in memory, which keep the contracts of the real ones: for tests that try thousands of histories."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import pytest

from projector.stores import Batch, Fenced, Moved, Standing, Verdict
from shared import event_store
from shared.event_store import Head, StoredEvent
from shared.poison import Poison
from shared.read_model_keys import Checkpoint

LOG = UUID(int=1)


class MemoryLog:
    """The log that `shared.event_store` reads while the block of `installed` lasts."""

    def __init__(self) -> None:
        self.events: list[StoredEvent] = []

    async def _read_batch(self, _: object, after: int, limit: int) -> list[StoredEvent]:
        return self.events[after : after + limit]

    async def _read_head(self, _: object) -> Head:
        return Head(LOG, len(self.events), None)

    async def _read_stream_page(self, _: object, stream_id: str, after: int, limit: int) -> list[StoredEvent]:
        return [event for event in self.events if event.stream_id == stream_id and event.version > after][:limit]

    def install(self, patch: pytest.MonkeyPatch) -> None:
        patch.setattr(event_store, "read_batch", self._read_batch)
        patch.setattr(event_store, "read_head", self._read_head)
        patch.setattr(event_store, "read_stream_page", self._read_stream_page)


@dataclass
class Contents:
    checkpoint: Checkpoint | None = None
    epoch: int = 0
    hash: bytes = b""
    documents: dict[str, dict[str, str]] = field(default_factory=dict)
    entries: set[tuple[str, Any]] = field(default_factory=set)
    parked: dict[str, Poison] = field(default_factory=dict)


class MemoryStore:
    """Methods are those of `projector.stores.Store`."""

    def __init__(self) -> None:
        self.contents = Contents()
        self.fail: str | None = None  # the next apply breaks off "before" or "after" it is done

    def copy(self) -> Contents:
        return deepcopy(self.contents)

    async def claim(self, epoch: int) -> Standing | None:
        if self.contents.epoch > epoch:
            raise Fenced(self.contents.epoch)
        self.contents.epoch = epoch
        return None if self.contents.checkpoint is None else Standing(self.contents.checkpoint, self.contents.hash)

    async def reset(self, epoch: int, log_id: UUID, serve_from: int) -> Checkpoint:
        if self.contents.epoch != epoch:
            raise Moved
        self.contents = Contents(Checkpoint(log_id, 0, serve_from, 1), epoch)
        assert self.contents.checkpoint is not None
        return self.contents.checkpoint

    async def checkpoint(self) -> Checkpoint | None:
        return self.contents.checkpoint

    async def load(self, expected: Checkpoint, document_ids: Sequence[str]) -> dict[str, bytes]:
        if document_ids and self.contents.checkpoint != expected:
            raise Moved
        found = {document_id: self.contents.documents.get(document_id) for document_id in document_ids}
        return {document_id: fields["document"].encode() for document_id, fields in found.items() if fields}

    async def apply(self, batch: Batch, epoch: int) -> Verdict:
        self._break("before")
        if self.contents.epoch > epoch:
            return Verdict.FENCED
        if self.contents.checkpoint != batch.expected:
            return Verdict.MOVED
        assert bool(batch.parking) == bool(batch.parked or batch.unparked)
        self.contents.documents |= batch.changes.documents
        for name, places in batch.changes.removed.items():
            self.contents.entries -= {(name, place) for place in places}
        for name, places in batch.changes.added.items():
            self.contents.entries |= {(name, place) for place in places}
        self.contents.parked |= batch.parked
        for document_id in batch.unparked:
            del self.contents.parked[document_id]
        self.contents.checkpoint, self.contents.hash = batch.reached, batch.hash
        self._break("after")
        return Verdict.APPLIED

    def _break(self, when: str) -> None:
        if self.fail == when:
            self.fail = None
            raise ConnectionError

    async def parked(self, expected: Checkpoint) -> list[Poison]:
        if self.contents.checkpoint != expected:
            raise Moved
        return [*self.contents.parked.values()]

    async def count_parked(self) -> int:
        return len(self.contents.parked)

    async def heartbeat(
        self, epoch: int, worker: str, state: str, reason: str = "", poison: Poison | None = None
    ) -> None: ...

    async def ask_retry(self, document_id: str) -> None: ...

    async def retries(self) -> frozenset[str]:
        return frozenset()

    async def retried(self, asked: Collection[str]) -> None: ...
