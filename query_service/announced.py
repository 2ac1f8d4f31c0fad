"""Documents that came with the announcement of a checkpoint, so that who waits for it need not ask Redis.

Most queries with a token ask for what was written a moment ago. Announcements of a partition come in its order, on one
connection, so what is kept here is right for the position that it came with, and is answered as of that. It is no more
than that: nobody tells that it has changed since, unless the next announcement does. So it is kept for a moment only,
and is only given to queries that bring a token.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic
from typing import NamedTuple

from query_service.reading import At, Document, Reading
from shared.eventstore.token import ConsistencyToken
from shared.read_models.checkpoint_message import Announcement
from shared.read_models.keys import Checkpoint

# A document is not answered from here for longer, nor for longer than that after Redis was last asked which generation
# is live: the one before may go on being announced.
MOMENT_SECONDS = 0.05


class _Heard(NamedTuple):
    at: float
    reading: Reading[Document]


class Announced:
    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self.clock = clock
        self._heard: dict[str, _Heard] = {}  # by document id, the earliest first
        self._generation = 0
        self._asked_at = float("-inf")  # when Redis was asked and said that this generation is live

    def live(self, generation: int, asked_at: float) -> None:
        """Redis has answered that it is, when asked at that time of `clock`."""
        self._generation, self._asked_at = generation, asked_at

    def hear(self, partition: int, announcement: Announcement) -> None:
        token, written = announcement
        if written is None:  # anything may have changed
            self._heard.clear()
            return
        now = self.clock()
        self._forget_before(now - MOMENT_SECONDS)
        at = At(Checkpoint(token.log_id, token.position, 0, written.generation), token.encode())
        for document_id, body, version in written.documents:
            self._heard.pop(document_id, None)  # the latest is to stand last
            document = Document(body.encode(), version.encode())
            self._heard[document_id] = _Heard(now, Reading(at, document, partition))

    def find(self, document_id: str, at_least: ConsistencyToken) -> Reading[Document] | None:
        """None where nothing is known of it that shows what the token asks for."""
        heard = self._heard.get(document_id)
        if heard is None or heard.reading.at is None:
            return None
        checkpoint = heard.reading.at.checkpoint
        if checkpoint.generation != self._generation or not checkpoint.shows(at_least):
            return None
        if self.clock() - min(heard.at, self._asked_at) >= MOMENT_SECONDS:
            return None
        return heard.reading

    def _forget_before(self, earliest: float) -> None:
        while self._heard:
            document_id = next(iter(self._heard))
            if self._heard[document_id].at >= earliest:
                return
            del self._heard[document_id]
