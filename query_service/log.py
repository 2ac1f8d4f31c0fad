"""The little that queries ask of the log itself: which one it is, and how far behind its true head a read model is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import monotonic
from typing import TypeVar
from uuid import UUID

import asyncpg

from shared import event_store
from shared.errors import Unavailable
from shared.postgres import CONNECTION_LOST

_ASK_SECONDS = 5.0
_REMEMBER_SECONDS = 1.0  # so that a flood of foreign tokens does not become a flood of statements

T = TypeVar("T")


@dataclass
class LogUnavailable(Unavailable):
    code = "log-unavailable"
    title = "The event log cannot be reached"

    @property
    def detail(self) -> str:
        return "PostgreSQL does not answer, so the true end of the log is unknown."


class Log:
    """Every method raises `LogUnavailable`."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record]) -> None:
        self._pool = pool
        self._id: UUID | None = None
        self._asked_at = float("-inf")

    async def current_id(self) -> UUID:
        """The log that is in PostgreSQL now, or was a second ago."""
        if self._id is None or monotonic() - self._asked_at > _REMEMBER_SECONDS:
            self._id = (await self.head()).log_id
            self._asked_at = monotonic()
        return self._id

    async def head(self) -> event_store.Head:
        return await _ask(lambda: event_store.read_head(self._pool))

    async def lag(self, position: int) -> tuple[int, float]:
        """(the log's true head, seconds since the oldest event after `position` was recorded, 0.0 without one)"""
        return await _ask(lambda: event_store.read_lag(self._pool, position))


async def _ask(question: Callable[[], Awaitable[T]]) -> T:
    try:
        async with asyncio.timeout(_ASK_SECONDS):
            return await question()
    except CONNECTION_LOST as error:
        raise LogUnavailable from error
