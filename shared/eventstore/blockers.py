"""Finds sessions that block the event log: those that our sessions wait for, long transactions, and those that keep the
queue of notifications from being emptied.

They are logged by calls that take too long (`SlowCallMonitor`) and by the query service, which polls for them
(`monitor_blockers`). Statements are never read: they may hold customers' data.
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

BLOCKED, LONG_TRANSACTION, NOTIFY_QUEUE = "blocked", "long-transaction", "notify-queue"
WAITING_SECONDS = 0.2  # shorter waits for a lock are normal: appends queue for one
POLL_SECONDS = 5.0
_READ_SECONDS = 2.0
_REPEAT_SECONDS = 30.0  # until blockers that stay are logged again

_LOG_BLOCKERS = "select * from log_blockers($1, $2)"

_log = get_logger()

Connect: TypeAlias = Callable[[], Awaitable["asyncpg.Connection[asyncpg.Record]"]]


class Blocker(NamedTuple):
    """A session that blocks the log, or may soon. Its state and transaction's age are None where they are not visible.

    Of the kind `blocked`, a session of ours waits for it: the `blocked_` fields and `waited_seconds` are of that one.
    """

    kind: str
    blocked_pid: int | None
    blocked_application: str | None
    waited_seconds: float | None
    pid: int
    application: str | None
    state: str | None
    transaction_seconds: float | None


async def read_blockers(connection: Connection, old_seconds: float) -> list[Blocker]:
    """The blockers of this moment; transactions count from an age of `old_seconds` on."""
    async with asyncio.timeout(_READ_SECONDS):
        rows = await connection.fetch(_LOG_BLOCKERS, timedelta(seconds=WAITING_SECONDS), timedelta(seconds=old_seconds))
    return [Blocker(*row) for row in rows]


class SlowCallMonitor:
    """Logs the blockers when a call takes longer than `patience` seconds.

    It reads them on a connection of its own: those of the process may all be waiting.
    """

    def __init__(self, connect: Connect, old_seconds: float, patience: float = 1.0) -> None:
        self._connect = connect
        self._old_seconds = old_seconds
        self._patience = patience
        self._reading: asyncio.Task[None] | None = None
        self._logged: set[int] = set()  # the pids
        self._logged_at = float("-inf")

    @contextmanager
    def watch(self, what: str) -> Iterator[None]:
        """Watches the block, which is called `what` in the log. Costs a timer."""
        timer = asyncio.get_running_loop().call_later(self._patience, self._start_reading, what)
        try:
            yield
        finally:
            timer.cancel()

    async def close(self) -> None:
        await cancel(self._reading)

    def _start_reading(self, what: str) -> None:
        STALLED.labels(what).inc()
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read(what), name="read-blockers")

    async def _read(self, what: str) -> None:
        try:
            async with asyncio.timeout(_READ_SECONDS):
                connection = await self._connect()
            try:
                blockers = await read_blockers(connection, self._old_seconds)
            finally:
                connection.terminate()
        except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
            _log.warning("slow call", what=what, error=repr(error))
            return
        pids = {blocker.pid for blocker in blockers}
        if pids == self._logged and monotonic() - self._logged_at < _REPEAT_SECONDS:
            return
        self._logged, self._logged_at = pids, monotonic()
        _log.warning("slow call", what=what, blockers=[as_json(blocker) for blocker in blockers])


async def monitor_blockers(connection: Connection, old_seconds: float, every: float = POLL_SECONDS) -> None:
    """Until cancelled: counts blockers for the metrics and logs each once, also before a session waits for it."""
    logged: set[tuple[str, int]] = set()
    while True:
        try:
            blockers = await read_blockers(connection, old_seconds)
        except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
            _log.warning("blockers not read", error=repr(error))
        else:
            _measure(blockers)
            for blocker in blockers:
                if (blocker.kind, blocker.pid) not in logged:
                    _log.warning("event log blocked", **as_json(blocker))
            logged = {(blocker.kind, blocker.pid) for blocker in blockers}
        await asyncio.sleep(every)


def _measure(blockers: list[Blocker]) -> None:
    for kind in (BLOCKED, LONG_TRANSACTION, NOTIFY_QUEUE):
        STALLS.labels(kind).set(sum(blocker.kind == kind for blocker in blockers))


def as_json(blocker: Blocker) -> dict[str, str | int | None]:
    """As in logs and answers, with ages in milliseconds."""
    return {
        "kind": blocker.kind,
        "blocked_pid": blocker.blocked_pid,
        "blocked_application": blocker.blocked_application,
        "waited_ms": _milliseconds(blocker.waited_seconds),
        "pid": blocker.pid,
        "application": blocker.application,
        "state": blocker.state,
        "transaction_age_ms": _milliseconds(blocker.transaction_seconds),
    }


def _milliseconds(seconds: float | None) -> int | None:
    return None if seconds is None else round(seconds * 1_000)
