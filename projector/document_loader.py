"""Loads the documents that the events of a page change, as they are before it, within a bound in bytes."""

from __future__ import annotations

from collections.abc import Container
from typing import Generic, NamedTuple

import msgspec

from projector.byte_budget import Held
from projector.document_cache import DocumentCache
from projector.projection import D, Projection
from projector.routing import Routed, documents_needed
from projector.stores.store import Store
from shared.failpoints import failpoint
from shared.read_models.keys import Checkpoint

LOADED_BYTES = 2 * 2**20  # of documents that are loaded for one batch, and one document more
_ALL = 2**62


class DocumentsBefore(NamedTuple, Generic[D]):
    """Documents before the first `events` events of a page; `new` are taken for new. More did not fit."""

    documents: dict[str, D]
    new: list[str]
    events: int


class DocumentLoader(Generic[D]):
    """Takes documents from `cache`, which the engine keeps as of its checkpoint, and the others from the store."""

    def __init__(self, projection: Projection[D], store: Store, cache: DocumentCache[D]) -> None:
        self._projection = projection.name
        self._store = store
        self._decoder = msgspec.json.Decoder(projection.document)
        self.cache = cache

    async def before(
        self, routed: Routed, parked: Container[str], checkpoint: Checkpoint, held: Held, *, guess: bool
    ) -> DocumentsBefore[D]:
        """The documents that the events change, but those that are parked. `guess`: where the first event is the first
        of its stream, the document is taken for new and not loaded."""
        documents: dict[str, D] = {}
        new, missing = [], []
        for document_id, version in documents_needed(routed, parked).items():
            if (document := self.cache.get(document_id)) is not None:
                documents[document_id] = document
            elif guess and version == 1:
                new.append(document_id)
            else:
                missing.append(document_id)
        if not missing:
            held.shrink(held.size - LOADED_BYTES)
            return DocumentsBefore(documents, new, len(routed.events))
        loaded = await self.load(checkpoint, missing)
        unread = missing[len(loaded) :]
        fitting = routed.events_without(unread)
        if not fitting:  # the first event alone changes more documents
            first = [document_id for document_id in routed.events[0][1] if document_id in unread]
            loaded |= await self.load(checkpoint, first, _ALL)
            fitting = routed.events_without([document_id for document_id in missing if document_id not in loaded])
        documents |= {document_id: document for document_id, document in loaded.items() if document is not None}
        return DocumentsBefore(documents, new, fitting)

    async def load(
        self, checkpoint: Checkpoint, document_ids: list[str], max_bytes: int | None = None
    ) -> dict[str, D | None]:
        """As many of them, in their order, as fit into `max_bytes`, `LOADED_BYTES` by default; None: there is none.
        Raises `CheckpointMismatch`."""
        raw = await self._store.load(checkpoint, document_ids, LOADED_BYTES if max_bytes is None else max_bytes)
        failpoint("projection.loaded", self._projection)
        return {
            document_id: None if document is None else self._decoder.decode(document)
            for document_id, document in raw.items()
        }
