"""The feeds that read models are folded from, and which of a request's tokens is of which feed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar
from uuid import UUID

from query_service.log_reader import LogReader
from shared.eventstore.feed import Feed
from shared.eventstore.token import ConsistencyToken, UnknownLog

T = TypeVar("T")


class Feeds:
    """A reader for each feed. A feed's id is read when a token first asks for it; a restore changes it."""

    def __init__(self, readers: Mapping[Feed, LogReader]) -> None:
        self.readers = readers
        self._by_id: dict[UUID, Feed] = {}

    async def read(self, feed: Feed, header: str, read: Callable[[ConsistencyToken | None], Awaitable[T]]) -> T:
        """The result of `read`, which gets the newest of the header's tokens of that feed; None: all are of others.

        Raises `MalformedToken`, `UnknownLog` where one is of no feed, `LogUnavailable`, and what `read` raises.
        """
        tokens = ConsistencyToken.newest_of_each(header)
        try:
            return await read(self._token_of(feed, tokens))
        except UnknownLog:
            await self._learn()
            if all(self._by_id.get(token.log_id) is feed for token in tokens):
                raise  # it was known well
            return await read(self._token_of(feed, tokens))

    def _token_of(self, feed: Feed, tokens: Sequence[ConsistencyToken]) -> ConsistencyToken | None:
        """What is not known to be of another feed is taken for one of this feed, which is right mostly."""
        possible = [token for token in tokens if self._by_id.get(token.log_id, feed) is feed]
        if len(possible) > 1:
            unknown = [token.log_id for token in possible if token.log_id not in self._by_id]
            raise UnknownLog(unknown[0])
        return possible[0] if possible else None

    async def _learn(self) -> None:
        heads = {feed: await reader.shared_head() for feed, reader in self.readers.items()}
        self._by_id = {head.log_id: feed for feed, head in heads.items()}
