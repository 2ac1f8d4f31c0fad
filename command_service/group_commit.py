"""Group commit: one task appends every request that waits, in one call, and hands each command its result.

The log's head row serialises appends; one fsync a command would then be the limit. While one group is being committed
the next one gathers, so groups grow with load and a lone command does not wait for others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic
from uuid import UUID

import asyncpg

from command_service.append_queue import AppendQueue, AppendQueueFull, Pending
from shared import metrics
from shared.errors import OutcomeUnknown, Unavailable
from shared.eventstore.append_request import AppendRequest, AppendResult
from shared.eventstore.blockers import SlowCallMonitor
from shared.eventstore.store import AppendSession
from shared.failpoints import failpoint
from shared.logs import get_logger
from shared.postgres import CONNECTION_LOST, was_refused

_log = get_logger()
_LONGEST_PAUSE = 1.0  # seconds between attempts to connect
# Refusals that will pass: disk or memory full, cancelled, locked, a standby. Any other refusal is a defect of ours.
TRANSIENT = (
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.LockNotAvailableError,
    asyncpg.TransactionRollbackError,
    asyncpg.ReadOnlySQLTransactionError,
)


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


class GroupCommit:
    """Owns one session with the log and the bounded queue in front of it."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[AppendSession]],
        monitor: SlowCallMonitor,
        *,
        queue_size: int,
        group_size: int,
        wait_seconds: float,
        timeout_seconds: float,
    ) -> None:
        self._connect = connect
        self._monitor = monitor
        self._wait_seconds = wait_seconds
        self._timeout_seconds = timeout_seconds
        self._queue = AppendQueue(queue_size, group_size)
        self._wake = asyncio.Event()
        self._stopping = False
        self.appending = 0  # requests, at this moment
        self._session: AppendSession | None = None
        self._log_id = UUID(int=0)  # of the log that answered last
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        metrics.APPEND_QUEUE.set_function(lambda: len(self._queue))  # read when metrics are, not set every time
        self._task = asyncio.create_task(self._serve(), name="group-commit")

    async def stop(self) -> None:
        """Appends what was accepted, then closes the session."""
        self._stopping = True
        self._wake.set()
        if self._task is not None:
            await self._task

    @property
    def healthy(self) -> bool:
        return self._task is not None and not self._task.done()

    def submit(self, request: AppendRequest, built_on: Sequence[Pending] = ()) -> Pending:
        """Queues a request; requests that name the same stream are appended in the order of these calls.

        `built_on` are the requests whose events the command was decided on although they were not in the log yet; the
        request names the streams of those events. Where one of them ends as anything but appended, this one ends as
        `CONFLICT` and is not appended. If it was not even sent, its version and position are 0.

        Raises `AppendQueueFull` or `ShuttingDown` (nothing was done).
        """
        if self._stopping:
            raise ShuttingDown
        pending = Pending(request, built_on)
        self._queue.put(pending)
        self._wake.set()
        return pending

    async def append(self, request: AppendRequest) -> AppendResult:
        """The result of a request that is built on no other. Raises what `submit` and awaiting its `Pending` raise."""
        return await self.submit(request)

    async def _serve(self) -> None:
        try:
            await self._run()
        except Exception:  # noqa: BLE001 - a defect: logged, and reported to the orchestrator by `healthy`
            _log.exception("group commit stopped")
        finally:
            self._stopping = True  # no command shall wait for a task that is gone
            self._queue.refuse(ShuttingDown)
            self._disconnect()

    async def _run(self) -> None:
        while not (self._stopping and not self._queue):
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            session = await self._connected()
            if not self._stopping:
                self._queue.refuse(lambda: AppendQueueFull(len(self._queue)), self._promised())
            if session is not None and (group := self._queue.next_group(self._log_id)):
                await self._append_group(session, group)
        if self._session is not None:
            with suppress(*CONNECTION_LOST):
                await self._session.close()

    async def _append_group(self, session: AppendSession, group: list[Pending]) -> None:
        started = monotonic()
        self.appending = len(group)
        # Counted while PostgreSQL works: then no command waits for it.
        asyncio.get_running_loop().call_soon(_observe_waits, group, started)
        try:
            failpoint("append.sending")
            with self._monitor.watch("append"):
                async with asyncio.timeout(self._timeout_seconds):
                    results = await session.append_group([pending.request for pending in group])
            failpoint("append.committed")
        except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
            self._failed(group, error)
        except BaseException:  # a defect of ours; the task ends with it, but no command waits for ever
            for pending in group:
                pending.finish(AppendOutcomeUnknown(str(pending.request.command_id)))
            raise
        else:
            metrics.APPEND_SECONDS.observe(monotonic() - started)
            metrics.APPEND_GROUP_COMMANDS.observe(len(group))
            self._log_id = results[0].log_id
            for pending, result in zip(group, results, strict=True):
                pending.finish(result)
        finally:
            self.appending = 0

    def _failed(self, group: list[Pending], error: Exception) -> None:
        if was_refused(error):
            # The whole group: it was rolled back, if it was sent at all, and the session is sound.
            _log.error("append refused", commands=len(group), error=repr(error))
            for pending in group:
                pending.finish(LogUnavailable() if isinstance(error, TRANSIENT) else error)
            if isinstance(error, asyncpg.ReadOnlySQLTransactionError):
                self._disconnect()  # another session may reach the server that takes writes
        else:
            # The server may have committed before the connection was lost; only the log can tell.
            _log.error("append outcome unknown", commands=len(group), error=repr(error))
            self._disconnect()
            for pending in group:
                pending.finish(AppendOutcomeUnknown(str(pending.request.command_id)))

    async def _connected(self) -> AppendSession | None:
        """The session, or None when none could be had in time for the requests that wait."""
        pause = 0.02
        while self._session is None or self._session.is_closed():
            try:
                self._session = await self._connect()
                _log.info("group commit connected")
            except (*CONNECTION_LOST, asyncpg.PostgresError) as error:  # away, or there and refusing the session
                _log.warning("event log unreachable", error=repr(error))
                self._queue.refuse(LogUnavailable, None if self._stopping else self._promised())
                if not self._queue:
                    return None
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        return self._session

    def _disconnect(self) -> None:
        if self._session is not None:
            self._session.terminate()
            self._session = None

    def _promised(self) -> float:
        """What was queued by this time has waited for as long as was promised."""
        return monotonic() - self._wait_seconds


def _observe_waits(group: list[Pending], until: float) -> None:
    for pending in group:
        metrics.APPEND_WAIT_SECONDS.observe(until - pending.since)
