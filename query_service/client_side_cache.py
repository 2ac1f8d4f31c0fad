"""A cache of documents that Redis invalidates (client-side caching, decision 21).

The cache also holds the checkpoint of each partition and the live generation. A document that was not invalidated is
right for every later checkpoint too, so a cached document is returned with the newest checkpoint that was read. After
Redis invalidates a checkpoint, the cache returns nothing of that partition until the checkpoint is read again.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from query_service.read_result import Document, LiveGeneration, ReadPosition, ReadResult
from shared.eventstore.token import ConsistencyToken
from shared.read_models.keys import PartitionKeys, partition_of

# Memory of a document beside its bytes: its entry, its key and four objects.
_OVERHEAD_BYTES = 400


class _Partition:
    """One partition of the live generation."""

    def __init__(self, keys: PartitionKeys) -> None:
        self.meta = keys.meta.encode()
        self.documents = keys.documents.encode()
        self.at: ReadPosition | None = None  # None: unknown, or of a read model that is being rebuilt


class ClientSideCache:
    """Call `store` and `invalidate` in the order in which Redis sent answers and invalidations."""

    def __init__(self, projection: str, max_bytes: int) -> None:
        self._first = PartitionKeys(projection)
        self._generations = self._first.generations.encode()
        self._max_bytes = max_bytes
        self._bytes = 0
        self._documents: OrderedDict[bytes, Document] = OrderedDict()  # by key, least recently used first
        self._live: LiveGeneration | None = None  # None: unknown
        self._partitions: list[_Partition] = []

    def find(self, document_id: str, at_least: ConsistencyToken | None) -> ReadResult[Document] | None:
        """The cached document; None when it is not cached, or its checkpoint has not reached the token."""
        if self._live is None:
            return None
        number = partition_of(document_id, self._live.partitions)
        partition = self._partitions[number]
        at = partition.at
        if at is None or (at_least is not None and not at.checkpoint.shows(at_least)):
            return None
        key = partition.documents + document_id.encode()
        document = self._documents.get(key)
        if document is None:
            return None
        self._documents.move_to_end(key)
        return ReadResult(at, document, number)

    def store(
        self, live: LiveGeneration, partition: int, at: ReadPosition | None, documents: dict[str, Document]
    ) -> None:
        """Stores what Redis answered for one partition, documents by id. An answer of partition 0 also confirms that
        the generation is live."""
        if partition == 0 and live != self._live:
            self._live = live
            self._partitions = [_Partition(keys) for keys in self._first.of(live.number).each(live.partitions)]
        elif live != self._live:
            return
        of = self._partitions[partition]
        of.at = None if at is None or at.checkpoint.rebuilding else at
        for document_id, document in documents.items():
            self._put(of.documents + document_id.encode(), document)

    def invalidate(self, keys: Sequence[bytes] | None) -> None:
        """Removes what is cached of these keys; None: of all keys."""
        if keys is None:
            self._documents.clear()
            self._bytes = 0
            self._live = None
            return
        for key in keys:
            if self._remove(key):
                continue
            if key == self._generations:
                self._live = None
            for partition in self._partitions:
                if partition.meta == key:
                    partition.at = None

    def _put(self, key: bytes, document: Document) -> None:
        self._remove(key)
        self._documents[key] = document
        self._bytes += _size(key, document)
        while self._bytes > self._max_bytes:
            self._bytes -= _size(*self._documents.popitem(last=False))

    def _remove(self, key: bytes) -> bool:
        document = self._documents.pop(key, None)
        if document is None:
            return False
        self._bytes -= _size(key, document)
        return True


def _size(key: bytes, document: Document) -> int:
    return _OVERHEAD_BYTES + len(key) + sum(len(part) for part in document if part is not None)
