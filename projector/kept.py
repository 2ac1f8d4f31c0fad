"""Documents that were written last, kept in memory so that the next batch need not load them."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic

from projector.projection import D

# As JSON; the objects take a few times that. Four times as much made a rebuild 5 % slower: objects that are let go much
# later than they were made are in no cache of the processor any more.
MOST_BYTES = 512 * 1024


class Kept(Generic[D]):
    """Documents as of the checkpoint of who keeps them; the longest untouched go first.

    They are right for as long as every apply since was ours: who is refused once has to `clear`.
    """

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most = most_bytes
        self._documents: OrderedDict[str, tuple[D, int]] = OrderedDict()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._documents)

    def get(self, document_id: str) -> D | None:
        found = self._documents.get(document_id)
        return None if found is None else found[0]

    def put(self, document_id: str, document: D, size: int) -> None:
        """`size`: of its JSON."""
        self.drop(document_id)
        self._documents[document_id] = document, size
        self.bytes += size
        while self.bytes > self._most:
            _, (_, size) = self._documents.popitem(last=False)
            self.bytes -= size

    def drop(self, document_id: str) -> None:
        if (found := self._documents.pop(document_id, None)) is not None:
            self.bytes -= found[1]

    def clear(self) -> None:
        self._documents.clear()
        self.bytes = 0
