"""Documents with their sealed texts opened, cached until the next key is destroyed: opening one costs more than finding
it in the client-side cache."""

from __future__ import annotations

from collections import OrderedDict

from shared.privacy.subject_key_cache import SubjectKeyCache

MAX_BYTES = 8 * 1024 * 1024  # sealed and opened together


class OpenedDocuments:
    def __init__(self, keys: SubjectKeyCache) -> None:
        self.keys = keys
        self._opened: OrderedDict[bytes, bytes] = OrderedDict()  # by the document, the oldest first
        self._bytes = 0
        self._epoch = keys.epoch

    def __len__(self) -> int:
        return len(self._opened)

    def find(self, document: bytes) -> bytes | None:
        self._follow(self.keys.epoch)
        return self._opened.get(document)

    def put(self, document: bytes, opened: bytes, epoch: int) -> None:
        """Unless a key was destroyed since that `epoch`."""
        self._follow(self.keys.epoch)
        if epoch != self._epoch or document in self._opened:
            return
        self._opened[document] = opened
        self._bytes += len(document) + len(opened)
        while self._bytes > MAX_BYTES:
            self._bytes -= sum(map(len, self._opened.popitem(last=False)))

    def _follow(self, epoch: int) -> None:
        if epoch != self._epoch:
            self._opened.clear()
            self._bytes, self._epoch = 0, epoch
