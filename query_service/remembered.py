"""Documents that were read, for as long as Redis has not told that they have changed.

Beside them is kept the place in the log that each partition shows, and which generation is live. A document that has
not changed is right for every later place too, so an answer from here stands for the newest place that was read; once
that place has changed, nothing is answered from here before it was read again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from query_service.reading import At, Document, Layout, Reading
from shared.eventstore.token import ConsistencyToken
from shared.read_models.keys import PartitionKeys, partition_of

# What a document takes beside its bytes: its entry, its key and four objects.
_OVERHEAD_BYTES = 400


class _Part:
    """One partition of the live generation."""

    def __init__(self, keys: PartitionKeys) -> None:
        self.meta = keys.meta.encode()
        self.documents = keys.documents.encode()
        self.at: At | None = None  # None: not known, or nothing that answers may stand for


class Remembered:
    """`learn` and `forget` are called in the order in which Redis has said it."""

    def __init__(self, projection: str, most_bytes: int) -> None:
        self._first = PartitionKeys(projection)
        self._generations = self._first.generations.encode()
        self._most_bytes = most_bytes
        self._bytes = 0
        self._documents: OrderedDict[bytes, Document] = OrderedDict()  # by key; the least recently used first
        self._layout: Layout | None = None  # None: not known
        self._parts: list[_Part] = []

    def find(self, document_id: str, at_least: ConsistencyToken | None) -> Reading[Document] | None:
        """None where it is not known, or not as far as the token asks for."""
        if self._layout is None:
            return None
        partition = partition_of(document_id, self._layout.partitions)
        part = self._parts[partition]
        at = part.at
        if at is None or (at_least is not None and not at.checkpoint.shows(at_least)):
            return None
        key = part.documents + document_id.encode()
        document = self._documents.get(key)
        if document is None:
            return None
        self._documents.move_to_end(key)
        return Reading(at, document, partition)

    def learn(self, layout: Layout, partition: int, at: At | None, documents: dict[str, Document]) -> None:
        """What Redis has answered for a partition of that layout, by id. Of the first, that the layout is live."""
        if partition == 0 and layout != self._layout:
            self._layout = layout
            self._parts = [_Part(keys) for keys in self._first.of(layout.generation).each(layout.partitions)]
        elif layout != self._layout:
            return
        part = self._parts[partition]
        part.at = None if at is None or at.checkpoint.rebuilding else at
        for document_id, document in documents.items():
            self._keep(part.documents + document_id.encode(), document)

    def forget(self, keys: Sequence[bytes] | None) -> None:
        """What has changed, by key; None: everything may have."""
        if keys is None:
            self._documents.clear()
            self._bytes = 0
            self._layout = None
            return
        for key in keys:
            if self._drop(key):
                continue
            if key == self._generations:
                self._layout = None
            for part in self._parts:
                if part.meta == key:
                    part.at = None

    def _keep(self, key: bytes, document: Document) -> None:
        self._drop(key)
        self._documents[key] = document
        self._bytes += _size(key, document)
        while self._bytes > self._most_bytes:
            self._bytes -= _size(*self._documents.popitem(last=False))

    def _drop(self, key: bytes) -> bool:
        document = self._documents.pop(key, None)
        if document is None:
            return False
        self._bytes -= _size(key, document)
        return True


def _size(key: bytes, document: Document) -> int:
    return _OVERHEAD_BYTES + len(key) + sum(len(part) for part in document if part is not None)
