"""Documents that were written last, cached so that the next batch need not load them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic

from projector.projection import D

# As JSON; the objects take a few times that. Larger caches made rebuilds slower: decision 16.
MAX_BYTES = 512 * 1024
_ALL_BYTES = 4 * 2**20  # of all partitions of a read model


def cache_bytes(partitions: int) -> int:
    """For each of so many partitions."""
    return min(MAX_BYTES, _ALL_BYTES // partitions)


class DocumentCache(Generic[D]):
    """An LRU cache of documents as of its owner's checkpoint.

    It is right for as long as every apply since was its owner's. Call `clear()` after any refused apply.
    """

    def __init__(self, max_bytes: int = MAX_BYTES) -> None:
        self._max = max_bytes
        self._documents: OrderedDict[str, tuple[D, int]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._documents)

    def get(self, document_id: str) -> D | None:
        found = self._documents.get(document_id)
        return None if found is None else found[0]

    def put(self, document_id: str, document: D, size: int) -> None:
        """`size`: bytes of its JSON. One that is larger than the whole cache is not cached."""
        self.drop(document_id)
        if size > self._max:
            return
        self._documents[document_id] = document, size
        self.bytes += size
        while self.bytes > self._max:
            _, (_, size) = self._documents.popitem(last=False)
            self.bytes -= size

    def drop(self, document_id: str) -> None:
        if (found := self._documents.pop(document_id, None)) is not None:
            self.bytes -= found[1]

    def clear(self) -> None:
        self._documents.clear()
        self.bytes = 0
