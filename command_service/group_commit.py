"""Group commit: one task appends every request that waits, in one call, and hands each command its result.

The log's head row serialises appends; one fsync a command would then be the limit. While one group is being committed
the next one gathers, so groups grow with load and a lone command does not wait for others.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import takewhile
from time import monotonic
from typing import Any
from uuid import UUID

import asyncpg

from shared import metrics
from shared.errors import OutcomeUnknown, Unavailable
from shared.eventstore.append_request import AppendRequest, AppendResult, AppendStatus
from shared.eventstore.blockers import SlowCallMonitor
from shared.eventstore.store import AppendSession
from shared.failpoints import failpoint
from shared.logs import get_logger
from shared.postgres import CONNECTION_LOST, was_refused

_log = get_logger()
_LONGEST_PAUSE = 1.0  # seconds between attempts to connect
# Of data and metadata. The request that reaches it is the last of its group; none is queued behind one that reaches it.
_GROUP_CHARACTERS = 4 * 2**20
_QUEUE_CHARACTERS = 16 * 2**20

# Refusals that will pass: disk or memory full, cancelled, locked, a standby. Any other refusal is a defect of ours.
_TRANSIENT = (
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


class Pending:
    """A request on its way to the log. The command that submitted it awaits it once, for its `AppendResult`.

    Awaiting raises `LogUnavailable` or `AppendQueueFull` (nothing was done), `AppendOutcomeUnknown`, or what PostgreSQL
    refused the group with.
    """

    __slots__ = ("_result", "appended", "built_on", "request", "since", "size")

    def __init__(self, request: AppendRequest, built_on: Sequence[Pending]) -> None:
        self.request = request
        self.built_on = built_on
        self.since = monotonic()
        size = 0
        for _, _, events, _ in request.streams:
            for _, _, _, data, metadata, _ in events:
                size += len(data) + len(metadata)
        self.size = size  # in characters
        self.appended: bool | None = None  # None until it is known
        self._result: asyncio.Future[AppendResult] = asyncio.get_running_loop().create_future()

    def __await__(self) -> Generator[Any, None, AppendResult]:
        return self._result.__await__()

    @property
    def abandoned(self) -> bool:
        """Whether the client went away while it waited."""
        return self._result.cancelled()

    @property
    def is_unfounded(self) -> bool:
        """Whether a request that it is built on was not appended."""
        return any(other.appended is False for other in self.built_on)

    async def settled(self) -> None:
        """Returns once the result is there, for a command that waits for another one's; raises nothing."""
        await asyncio.wait([self._result])

    def finish(self, outcome: AppendResult | Exception) -> None:
        self.appended = isinstance(outcome, AppendResult) and outcome.status is AppendStatus.APPENDED
        self.built_on = ()  # else the requests of a busy stream would keep each other in memory
        if self._result.done():  # the client went away; the log has the answer
            return
        if isinstance(outcome, Exception):
            self._result.set_exception(outcome)
        else:
            self._result.set_result(outcome)


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
        self._queue_size = queue_size
        self._group_size = group_size
        self._wait_seconds = wait_seconds
        self._timeout_seconds = timeout_seconds
        self._queue: deque[Pending] = deque()
        self._queued = 0  # characters in the queue
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
        if len(self._queue) >= self._queue_size or self._queued >= _QUEUE_CHARACTERS:
            raise AppendQueueFull(len(self._queue))
        pending = Pending(request, built_on)
        self._queue.append(pending)
        self._queued += pending.size
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
            self._give_up(len(self._queue), ShuttingDown)
            self._disconnect()

    async def _run(self) -> None:
        while not (self._stopping and not self._queue):
            if not self._queue:
                self._wake.clear()
                await self._wake.wait()
                continue
            session = await self._connected()
            if not self._stopping:
                self._give_up(self._late(), lambda: AppendQueueFull(len(self._queue)))
            if session is not None and (group := self._next_group()):
                await self._append_group(session, group)
        if self._session is not None:
            with suppress(*CONNECTION_LOST):
                await self._session.close()

    def _next_group(self) -> list[Pending]:
        """The requests that have waited longest, in their order, each key once.

        A request whose key is in the group waits for the next group, as do later requests that name one of its streams.
        """
        group: list[Pending] = []
        later: list[Pending] = []
        keys: set[str] = set()
        held: set[str] = set()  # the streams of those in `later`
        size = 0
        for _ in range(min(len(self._queue), 4 * self._group_size)):  # bounded, however many come with one key
            if len(group) == self._group_size or size >= _GROUP_CHARACTERS:
                break
            pending = self._queue.popleft()
            self._queued -= pending.size
            request = pending.request
            if pending.abandoned or (pending.built_on and pending.is_unfounded):
                pending.finish(self._not_sent(request))
                continue
            key = request.idempotency_key
            if key in keys or (held and not held.isdisjoint(stream.stream_id for stream in request.streams)):
                later.append(pending)
                held.update(stream.stream_id for stream in request.streams)
                continue
            if key is not None:
                keys.add(key)
            group.append(pending)
            size += pending.size
        self._queue.extendleft(reversed(later))
        self._queued += sum([pending.size for pending in later])
        return group

    def _not_sent(self, request: AppendRequest) -> AppendResult:
        own = request.streams[0].stream_id
        return AppendResult(AppendStatus.CONFLICT, request.command_id, own, 0, 0, self._log_id)

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
                pending.finish(LogUnavailable() if isinstance(error, _TRANSIENT) else error)
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
                self._give_up(len(self._queue) if self._stopping else self._late(), LogUnavailable)
                if not self._queue:
                    return None
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE)
        return self._session

    def _disconnect(self) -> None:
        if self._session is not None:
            self._session.terminate()
            self._session = None

    def _late(self) -> int:
        """How many have waited for as long as was promised."""
        late = monotonic() - self._wait_seconds
        return sum(1 for _ in takewhile(lambda pending: pending.since <= late, self._queue))

    def _give_up(self, count: int, refusal: Callable[[], Exception]) -> None:
        for _ in range(count):
            pending = self._queue.popleft()
            self._queued -= pending.size
            pending.finish(refusal())


def _observe_waits(group: list[Pending], until: float) -> None:
    for pending in group:
        metrics.APPEND_WAIT_SECONDS.observe(until - pending.since)
