"""Answers queries from a read model that has reached the client's Consistency-Token.

A query that comes too early waits in memory until the read model's checkpoint is far enough. A `CheckpointSignal` only
says when another read is worth it: the checkpoint that is read together with the data decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol, TypeAlias, TypeVar

from query_service.client_limit import ClientLimit
from query_service.log_reader import MEASURE_SECONDS, LogReader, LogUnavailable
from query_service.projection_lag import LagEstimate
from query_service.read_result import ReadResult
from shared.errors import Unavailable
from shared.eventstore.token import ConsistencyToken
from shared.metrics import TOKEN_WAIT_SECONDS, TOKEN_WAITS

T = TypeVar("T")

# Gets the token that the result has to show, so that a cache does not answer with an older one.
Read: TypeAlias = Callable[[ConsistencyToken | None], Awaitable[ReadResult[T]]]

# A token that is not reached within this time is compared with the log's head: most are reached, and cost no statement.
CHECK_SECONDS = 0.05

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

    def __init__(self, signal: CheckpointSignal, log: LogReader, lag: LagEstimate, waiting: ClientLimit) -> None:
        """`waiting` counts the queries of each client that wait, at all read models."""
        self._signal = signal
        self._log = log
        self._lag = lag
        self._waiting = waiting

    async def read(self, read: Read[T]) -> ReadResult[T]:
        """The result of `read`. Raises `ProjectionRebuilding`."""
        result = await read(None)
        if result.at is None or result.at.checkpoint.rebuilding:
            raise ProjectionRebuilding
        return result

    async def read_at_least(self, token: ConsistencyToken, wait: float, client: str, read: Read[T]) -> ReadResult[T]:
        """The result of `read` once the read model has reached the token, for which it waits up to `wait` seconds.

        Raises `UnknownLog` for a token of another log, `TokenBeyondLog` for one beyond its head, `ProjectionLagging`
        and `ProjectionRebuilding` when not reached, and `ClientLimitReached` where too many of the client wait.
        """
        seen = self._signal.count
        result = await read(token)
        if self._reached(result, token):
            _IMMEDIATE.inc()
            return result
        last = _without_value(result)
        del result  # also of this frame
        started = perf_counter()
        with self._waiting.slot(client):
            result = await self._wait(token, wait, read, last, seen)
        _WAITED.inc()
        TOKEN_WAIT_SECONDS.observe(perf_counter() - started)
        return result

    def _reached(self, result: ReadResult[T], token: ConsistencyToken) -> bool:
        if result.at is None:
            return False
        checkpoint = result.at.checkpoint
        return checkpoint.log_id == token.log_id and checkpoint.position >= max(token.position, checkpoint.ready_at)

    async def _wait(
        self, token: ConsistencyToken, wait: float, read: Read[T], last: ReadResult[None], seen: int
    ) -> ReadResult[T]:
        """Reads again and again, until a result has reached the token. `last` is the result that had not."""
        began_at = asyncio.get_running_loop().time()
        deadline = began_at + wait
        until = min(deadline, began_at + CHECK_SECONDS)
        while True:
            wanted = token.position
            if last.at is not None:
                wanted = max(wanted, last.at.checkpoint.ready_at)
                if last.at.checkpoint.log_id != token.log_id:
                    # Where the token is of the log in PostgreSQL, that log was replaced and the projector has not
                    # noticed yet.
                    await self._log.check(token)
            if not await self._signal.wait(wanted, seen, until, last.lagging_partition):
                await self._check_in_time(token)
                until = deadline
                if not await self._signal.wait(wanted, seen, until, last.lagging_partition):
                    _GAVE_UP.inc()
                    raise _not_reached(last, token, self._lag)
            seen = self._signal.count
            result = await read(token)
            if self._reached(result, token):
                return result
            last = _without_value(result)
            del result

    async def _check_in_time(self, token: ConsistencyToken) -> None:
        """Does nothing where PostgreSQL does not answer: the query waits."""
        with suppress(LogUnavailable, TimeoutError):
            async with asyncio.timeout(MEASURE_SECONDS):
                await self._log.check(token)


def _without_value(result: ReadResult[T]) -> ReadResult[None]:
    """What a query keeps while it waits: a document may be large."""
    return ReadResult(result.at, None, result.lagging_partition)


def _not_reached(result: ReadResult[None], token: ConsistencyToken, lag: LagEstimate) -> Unavailable:
    if result.at is None:
        return ProjectionRebuilding()
    checkpoint = result.at.checkpoint
    if checkpoint.rebuilding or checkpoint.log_id != token.log_id:
        return ProjectionRebuilding()
    return ProjectionLagging(checkpoint.position, token.position, lag.milliseconds)
