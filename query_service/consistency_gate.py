"""Answers queries from a read model that has reached the client's Consistency-Token.

A query that comes too early waits in memory until the read model's checkpoint is far enough. A `CheckpointSignal` only
says when another read is worth it: the checkpoint that is read together with the data decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol, TypeAlias, TypeVar

from query_service.log_reader import LogReader
from query_service.projection_lag import LagEstimate
from query_service.read_result import ReadResult
from shared.errors import Unavailable
from shared.eventstore.token import ConsistencyToken, UnknownLog
from shared.metrics import TOKEN_WAIT_SECONDS, TOKEN_WAITS

T = TypeVar("T")

# Gets the token that the result has to show, so that a cache does not answer with an older one.
Read: TypeAlias = Callable[[ConsistencyToken | None], Awaitable[ReadResult[T]]]

_IMMEDIATE = TOKEN_WAITS.labels("immediate")
_WAITED = TOKEN_WAITS.labels("waited")
_GAVE_UP = TOKEN_WAITS.labels("gave-up")


@dataclass
class ProjectionLagging(Unavailable):
    """The read model did not reach the token in time."""

    position: int
    wanted: int
    lag_ms: int | None  # None: unknown
    code = "projection-lagging"
    title = "The read model has not reached the Consistency-Token yet"

    @property
    def detail(self) -> str:
        late = "" if self.lag_ms is None else f", {self.lag_ms} ms behind the log"
        return f"The read model is at position {self.position}{late}; the token asks for {self.wanted}."


@dataclass
class ProjectionRebuilding(Unavailable):
    """The read model is missing, or shows less than it showed before."""

    code = "projection-rebuilding"
    title = "The read model is being built"

    @property
    def detail(self) -> str:
        return "The read model is being built from the log; it answers when it has caught up."


class CheckpointSignal(Protocol):
    """Says when another read is worth it: `CheckpointSubscription` or `CheckpointPoller`."""

    count: int  # of positions received

    def start(self) -> None: ...

    async def wait(self, position: int, seen: int, deadline: float, partition: int = 0) -> bool: ...

    async def close(self) -> None: ...


class ConsistencyGate:
    """Of one read model."""

    def __init__(self, signal: CheckpointSignal, log: LogReader, lag: LagEstimate) -> None:
        self._signal = signal
        self._log = log
        self._lag = lag

    async def read(self, read: Read[T]) -> ReadResult[T]:
        """The result of `read`. Raises `ProjectionRebuilding`."""
        result = await read(None)
        if result.at is None or result.at.checkpoint.rebuilding:
            raise ProjectionRebuilding
        return result

    async def read_at_least(self, token: ConsistencyToken, wait: float, read: Read[T]) -> ReadResult[T]:
        """The result of `read` once the read model has reached the token, for which it waits up to `wait` seconds.

        Raises `UnknownLog` for a token of another log, `ProjectionLagging` and `ProjectionRebuilding` when not reached.
        """
        started = perf_counter()
        deadline = asyncio.get_running_loop().time() + wait
        immediate = True
        while True:
            seen = self._signal.count
            result = await read(token)
            wanted = token.position
            if result.at is not None:
                checkpoint = result.at.checkpoint
                wanted = max(wanted, checkpoint.ready_at)
                if checkpoint.log_id != token.log_id:
                    await self._refuse_other_log(token)
                elif checkpoint.position >= wanted:
                    break
            immediate = False
            if not await self._signal.wait(wanted, seen, deadline, result.lagging_partition):
                _GAVE_UP.inc()
                raise _not_reached(result, token, self._lag)
        if immediate:
            _IMMEDIATE.inc()
        else:
            _WAITED.inc()
            TOKEN_WAIT_SECONDS.observe(perf_counter() - started)
        return result

    async def _refuse_other_log(self, token: ConsistencyToken) -> None:
        """Raises `UnknownLog`, unless the token is of the log in PostgreSQL: then that log was replaced, and the
        projector has not noticed yet."""
        if not await self._log.has_id(token.log_id):
            raise UnknownLog(token.log_id)


def _not_reached(result: ReadResult[T], token: ConsistencyToken, lag: LagEstimate) -> Unavailable:
    if result.at is None:
        return ProjectionRebuilding()
    checkpoint = result.at.checkpoint
    if checkpoint.rebuilding or checkpoint.log_id != token.log_id:
        return ProjectionRebuilding()
    return ProjectionLagging(checkpoint.position, token.position, lag.milliseconds)
