"""Group commit: one task appends everything that waits, in one call, and hands each command its verdict.

The log's head row serialises appends; one fsync a command would then be the limit. While one group is being
committed the next one gathers, so groups grow with load and a lone command waits for nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from time import monotonic
from typing import TypeAlias

import asyncpg

from shared import metrics
from shared.errors import OutcomeUnknown, Unavailable
from shared.eventstore import log as event_log
from shared.eventstore.blockers import SlowCallMonitor
from shared.eventstore.log import AppendRequest, AppendResult
from shared.failpoints import failpoint
from shared.logs import get_logger
from shared.postgres import CONNECTION_LOST, was_refused

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

_log = get_logger()
_LONGEST_PAUSE = 1.0  # seconds between attempts to connect

# Refusals that will pass: disk or memory full, cancelled, locked, a standby. Any other refusal is a defect of ours.
_FOR_NOW = (
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.LockNotAvailableError,
    asyncpg.TransactionRollbackError,
    asyncpg.ReadOnlySQLTransactionError,
)


@dataclass
class AppendQueueFull(Unavailable):
    waiting: int
    code = "overloaded"
    title = "Too many commands are waiting"

    @property
    def detail(self) -> str:
        return f"{self.waiting} commands are waiting to be appended. Nothing was done; try again shortly."


@dataclass
class LogUnavailable(Unavailable):
    code = "log-unavailable"
    title = "The event log cannot be reached"

    @property
    def detail(self) -> str:
        return "The event log cannot be reached. Nothing was done; try again shortly."


@dataclass
class ShuttingDown(Unavailable):
    code = "shutting-down"
    title = "The service is stopping"


@dataclass
class AppendOutcomeUnknown(OutcomeUnknown):
    command_id: str
    code = "outcome-unknown"
    title = "It is not known whether the command took effect"

    @property
    def detail(self) -> str:
        return (
            "The connection to the event log was lost, or the service had to stop, while the command was being "
            "appended. Repeat the request with the same Idempotency-Key to learn the outcome."
        )


@dataclass(slots=True)
class _Waiting:
    append: AppendRequest
    verdict: asyncio.Future[AppendResult]
    since: float


class Appender:
    """Owns one connection to the log and the bounded queue in front of it."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Connection]],
        stalls: SlowCallMonitor,
        *,
        queue_size: int,
        group_size: int,
        wait_seconds: float,
        timeout_seconds: float,
    ) -> None:
        self._connect = connect
        self._stalls = stalls
        self._queue_size = queue_size
        self._group_size = group_size
        self._wait_seconds = wait_seconds
        self._timeout_seconds = timeout_seconds
        self._queue: deque[_Waiting] = deque()
        self._wake = asyncio.Event()
        self._stopping = False
        self.appending = 0  # commands, at this moment
        self._connection: Connection | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        metrics.APPEND_QUEUE.set_function(lambda: len(self._queue))  # asked when metrics are read, not told every time
        self._task = asyncio.create_task(self._serve(), name="appender")

    async def stop(self) -> None:
        """Appends what was accepted, then closes the connection."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await self._task

    @property
    def healthy(self) -> bool:
        return self._task is not None and not self._task.done()

    async def append(self, append: AppendRequest) -> AppendResult:
        """The verdict on one command, once it is durable.

        Raises `AppendQueueFull`, `LogUnavailable` or `ShuttingDown` (nothing was done), or `AppendOutcomeUnknown`.
        """
        if self._stopping:
            raise ShuttingDown
        if len(self._queue) >= self._queue_size:
            raise AppendQueueFull(len(self._queue))
        waiting = _Waiting(append, asyncio.get_running_loop().create_future(), monotonic())
        self._queue.append(waiting)
        self._wake.set()
        return await waiting.verdict

    async def _serve(self) -> None:
        try:
            await self._run()
        except Exception:  # noqa: BLE001 - a defect: told in the log, and to the orchestrator by `healthy`
            _log.exception("the appender has stopped")
        finally:
            self._stopping = True  # nobody shall wait for a task that is gone
            self._give_up(len(self._queue), ShuttingDown)
            self._disconnect()

    async def _run(self) -> None:
        while not (self._stopping and not self._queue):
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            connection = await self._connected()
            if not self._stopping:
                self._give_up(self._late(), lambda: AppendQueueFull(len(self._queue)))
            if connection is not None and (group := self._next_group()):
                await self._append_group(connection, group)
        if self._connection is not None:
            with suppress(*CONNECTION_LOST):
                await self._connection.close(timeout=1.0)

    def _next_group(self) -> list[_Waiting]:
        """The longest-waiting commands, at most one a stream and one a key: the append function judges a group against
        the log as it was before the group. The others keep their place in the queue."""
        group: list[_Waiting] = []
        later: list[_Waiting] = []
        streams: set[str] = set()
        keys: set[str | None] = set()
        for _ in range(min(len(self._queue), 4 * self._group_size)):  # bounded, however many wait for one stream
            if len(group) == self._group_size:
                break
            waiting = self._queue.popleft()
            if waiting.verdict.done():  # the client went away before anything was sent
                continue
            stream_id, key = waiting.append.stream_id, waiting.append.key
            if stream_id in streams or (key is not None and key in keys):
                later.append(waiting)
            else:
                streams.add(stream_id)
                keys.add(key)
                group.append(waiting)
        self._queue.extendleft(reversed(later))
        return group

    async def _append_group(self, connection: Connection, group: list[_Waiting]) -> None:
        started = monotonic()
        self.appending = len(group)
        # Once the group is on its way: what is counted while PostgreSQL works makes nobody wait.
        asyncio.get_running_loop().call_soon(_observe_waits, group, started)
        try:
            failpoint("append.sending")
            with self._stalls.watch("append"):
                async with asyncio.timeout(self._timeout_seconds):
                    verdicts = await event_log.append_group(connection, [waiting.append for waiting in group])
            failpoint("append.committed")
        except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
            self._failed(group, error)
        except BaseException:  # a defect of ours; the task ends with it, but nobody waits for ever
            for waiting in group:
                _settle(waiting, AppendOutcomeUnknown(str(waiting.append.command_id)))
            raise
        else:
            metrics.APPEND_SECONDS.observe(monotonic() - started)
            metrics.APPEND_GROUP_COMMANDS.observe(len(group))
            for waiting, verdict in zip(group, verdicts, strict=True):
                _settle(waiting, verdict)
        finally:
            self.appending = 0

    def _failed(self, group: list[_Waiting], error: Exception) -> None:
        if was_refused(error):
            # The whole group: it was rolled back, if it was sent at all, and the connection is sound.
            _log.error("append refused", commands=len(group), error=repr(error))
            for waiting in group:
                _settle(waiting, LogUnavailable() if isinstance(error, _FOR_NOW) else error)
        else:
            # The server may have committed before the connection went; only the log could tell.
            _log.error("append outcome unknown", commands=len(group), error=repr(error))
            self._disconnect()
            for waiting in group:
                _settle(waiting, AppendOutcomeUnknown(str(waiting.append.command_id)))

    async def _connected(self) -> Connection | None:
        """The connection, or None when none could be had in time for the commands that wait."""
        pause = 0.02
        while self._connection is None or self._connection.is_closed():
            try:
                self._connection = await self._connect()
                _log.info("appender connected")
            except (*CONNECTION_LOST, asyncpg.PostgresError) as error:  # away, or there and not letting us in
                _log.warning("event log unreachable", error=repr(error))
                self._give_up(len(self._queue) if self._stopping else self._late(), LogUnavailable)
                if not self._queue:
                    return None
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    def _late(self) -> int:
        """How many have waited for as long as was promised."""
        late = monotonic() - self._wait_seconds
        return sum(1 for _ in takewhile(lambda waiting: waiting.since <= late, self._queue))

    def _give_up(self, count: int, refusal: Callable[[], Exception]) -> None:
        for _ in range(count):
            _settle(self._queue.popleft(), refusal())


def _observe_waits(group: list[_Waiting], until: float) -> None:
    for waiting in group:
        metrics.APPEND_WAIT_SECONDS.observe(until - waiting.since)


def _settle(waiting: _Waiting, outcome: AppendResult | Exception) -> None:
    if waiting.verdict.done():  # the client went away; the log has the answer
        return
    if isinstance(outcome, Exception):
        waiting.verdict.set_exception(outcome)
    else:
        waiting.verdict.set_result(outcome)
