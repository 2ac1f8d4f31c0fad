"""Answers no older than the client's Consistency-Token.

A query that comes too early waits in memory until the projector publishes a checkpoint that is far enough. Publications
can be lost (Redis restarted, a connection broke), so while anybody waits one task for the whole process also looks at
the checkpoint itself, at a slow pace. Both only say *when to look*: what decides is the checkpoint read together with
the data.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol, TypeAlias, TypeVar

from query_service.lag import Lag
from query_service.log import Log
from query_service.reading import Reading
from shared.errors import Unavailable
from shared.eventstore.token import ConsistencyToken, UnknownLog
from shared.metrics import TOKEN_WAIT_SECONDS, TOKEN_WAITS

T = TypeVar("T")

# Told the token that the answer has to show, so that nothing older is given from memory.
Read: TypeAlias = Callable[[ConsistencyToken | None], Awaitable[Reading[T]]]

_IMMEDIATE = TOKEN_WAITS.labels("immediate")
_WAITED = TOKEN_WAITS.labels("waited")
_GAVE_UP = TOKEN_WAITS.labels("gave-up")


@dataclass
class ProjectionLagging(Unavailable):
    """The read model did not reach the token in time."""

    position: int
    wanted: int
    lag_ms: int | None  # None: not known
    code = "projection-lagging"
    title = "The read model has not reached the Consistency-Token yet"

    @property
    def detail(self) -> str:
        late = "" if self.lag_ms is None else f", {self.lag_ms} ms behind the log"
        return f"The read model is at position {self.position}{late}; the token asks for {self.wanted}."


@dataclass
class ProjectionRebuilding(Unavailable):
    """The read model is missing, or does not know yet what it knew before; no answer is better than a wrong one."""

    code = "projection-rebuilding"
    title = "The read model is being built"

    @property
    def detail(self) -> str:
        return "The read model is being built from the log; it answers when it has caught up."


class Tidings(Protocol):
    """What says when it is worth looking again: `News` or `Looks`."""

    count: int

    async def wait(self, position: int, seen: int, deadline: float, partition: int = 0) -> bool: ...


class Freshness:
    def __init__(self, news: Tidings, log: Log, lag: Lag) -> None:
        self._news = news
        self._log = log
        self._lag = lag

    async def read(self, read: Read[T]) -> Reading[T]:
        """What `read` gives, from a read model that knows all it ever knew. Raises `ProjectionRebuilding`."""
        reading = await read(None)
        if reading.at is None or reading.at.checkpoint.rebuilding:
            raise ProjectionRebuilding
        return reading

    async def read_at_least(self, token: ConsistencyToken, wait: float, read: Read[T]) -> Reading[T]:
        """What `read` gives once the read model has reached the token, for which it waits up to `wait` seconds.

        Raises `UnknownLog` for a token of another log, `ProjectionLagging` and `ProjectionRebuilding` when not reached.
        """
        started = perf_counter()
        deadline = asyncio.get_running_loop().time() + wait
        immediate = True
        while True:
            seen = self._news.count
            reading = await read(token)
            wanted = token.position
            if reading.at is not None:
                checkpoint = reading.at.checkpoint
                wanted = max(wanted, checkpoint.serve_from)
                if checkpoint.log_id != token.log_id:
                    await self._refuse_other_log(token)
                elif checkpoint.position >= wanted:
                    break
            immediate = False
            if not await self._news.wait(wanted, seen, deadline, reading.behind):
                _GAVE_UP.inc()
                raise _not_reached(reading, token, self._lag)
        if immediate:
            _IMMEDIATE.inc()
        else:
            _WAITED.inc()
            TOKEN_WAIT_SECONDS.observe(perf_counter() - started)
        return reading

    async def _refuse_other_log(self, token: ConsistencyToken) -> None:
        """The read model shows another log than the token's. Raises `UnknownLog` unless it is the read model that is
        behind: PostgreSQL was replaced, and the projector has not noticed yet."""
        if not await self._log.has_id(token.log_id):
            raise UnknownLog(token.log_id)


def _not_reached(reading: Reading[T], token: ConsistencyToken, lag: Lag) -> Unavailable:
    if reading.at is None:
        return ProjectionRebuilding()
    checkpoint = reading.at.checkpoint
    if checkpoint.rebuilding or checkpoint.log_id != token.log_id:
        return ProjectionRebuilding()
    return ProjectionLagging(checkpoint.position, token.position, lag.milliseconds)
