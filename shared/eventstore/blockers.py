"""Who is in the way of the log: sessions that others of ours wait for, and transactions that have been open for long.

Told to the log, once a stall, by whoever waits (`SlowCallMonitor`) and by the query service, which looks now and then
(`monitor_blockers`). Never a statement: those may hold customers' data.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from time import monotonic
from typing import NamedTuple, TypeAlias

import asyncpg

from shared.aio import cancel
from shared.eventstore.log import Connection
from shared.logs import get_logger
from shared.metrics import STALLED, STALLS
from shared.postgres import CONNECTION_LOST

BLOCKED, LONG_TRANSACTION = "blocked", "long-transaction"
WAITING_SECONDS = 0.2  # shorter waits for a lock are how appends take turns
LOOK_SECONDS = 5.0
_ASK_SECONDS = 2.0
_SILENT_SECONDS = 30.0  # before the same is said again of a stall that goes on

_LOG_BLOCKERS = "select * from log_blockers($1, $2)"

_log = get_logger()

Connect: TypeAlias = Callable[[], Awaitable["asyncpg.Connection[asyncpg.Record]"]]


class Blocker(NamedTuple):
    """`pid` is in the way; where it may be told, what its session does and since when its transaction is open.

    The fields of a `blocked` one are those of the session that waits for it.
    """

    kind: str
    blocked_pid: int | None
    blocked_application: str | None
    waited_seconds: float | None
    pid: int
    application: str | None
    state: str | None
    transaction_seconds: float | None


async def read_stalls(connection: Connection, old_seconds: float) -> list[Blocker]:
    """What is in the way now; a transaction is named from `old_seconds` on."""
    async with asyncio.timeout(_ASK_SECONDS):
        rows = await connection.fetch(_LOG_BLOCKERS, timedelta(seconds=WAITING_SECONDS), timedelta(seconds=old_seconds))
    return [Blocker(*row) for row in rows]


class SlowCallMonitor:
    """Says in the log who is in the way when something takes longer than `patience` seconds.

    It asks on a connection of its own: those of the process may all be waiting.
    """

    def __init__(self, connect: Connect, old_seconds: float, patience: float = 1.0) -> None:
        self._connect = connect
        self._old_seconds = old_seconds
        self._patience = patience
        self._asking: asyncio.Task[None] | None = None
        self._said: set[int] = set()  # the pids
        self._said_at = float("-inf")

    @contextmanager
    def watch(self, what: str) -> Iterator[None]:
        """Costs a timer, unless what it holds takes too long."""
        timer = asyncio.get_running_loop().call_later(self._patience, self._ask_soon, what)
        try:
            yield
        finally:
            timer.cancel()

    async def close(self) -> None:
        await cancel(self._asking)

    def _ask_soon(self, what: str) -> None:
        STALLED.labels(what).inc()
        if self._asking is None or self._asking.done():
            self._asking = asyncio.create_task(self._ask(what), name="stalls")

    async def _ask(self, what: str) -> None:
        try:
            async with asyncio.timeout(_ASK_SECONDS):
                connection = await self._connect()
            try:
                stalls = await read_stalls(connection, self._old_seconds)
            finally:
                connection.terminate()
        except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
            _log.warning("stalled", what=what, error=repr(error))
            return
        pids = {stall.pid for stall in stalls}
        if pids == self._said and monotonic() - self._said_at < _SILENT_SECONDS:
            return
        self._said, self._said_at = pids, monotonic()
        _log.warning("stalled", what=what, in_the_way=[as_json(stall) for stall in stalls])


async def monitor_blockers(connect: Connect, old_seconds: float, every: float = LOOK_SECONDS) -> None:
    """Until cancelled: measures what is in the way, also where nobody waits yet, and says it in the log once."""
    said: set[tuple[str, int]] = set()
    while True:
        try:
            connection = await connect()
            try:
                while True:
                    stalls = await read_stalls(connection, old_seconds)
                    _measure(stalls)
                    for stall in stalls:
                        if (stall.kind, stall.pid) not in said:
                            _log.warning("in the way of the log", **as_json(stall))
                    said = {(stall.kind, stall.pid) for stall in stalls}
                    await asyncio.sleep(every)
            finally:
                connection.terminate()
        except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
            _log.warning("stalls not looked for", error=repr(error))
        await asyncio.sleep(every)


def _measure(stalls: list[Blocker]) -> None:
    for kind in (BLOCKED, LONG_TRANSACTION):
        STALLS.labels(kind).set(sum(stall.kind == kind for stall in stalls))


def as_json(stall: Blocker) -> dict[str, str | int | None]:
    """As logs and answers show it: ages in milliseconds."""
    return {
        "kind": stall.kind,
        "blocked_pid": stall.blocked_pid,
        "blocked_application": stall.blocked_application,
        "waited_ms": _milliseconds(stall.waited_seconds),
        "pid": stall.pid,
        "application": stall.application,
        "state": stall.state,
        "transaction_age_ms": _milliseconds(stall.transaction_seconds),
    }


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1_000)
