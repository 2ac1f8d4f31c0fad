"""The tail of the log: one reader a process reads each new event once and offers it to the matching subscriptions.

It reads only while there are subscriptions. Positions are dense, so after a lost connection it continues at its
position: no event is missed or repeated.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager, contextmanager
from dataclasses import dataclass
from time import monotonic
from uuid import UUID

import asyncpg

from query_service.live.held_events import HeldByStream
from query_service.live.stream_filter import EventBatch, StreamFilter, filters_of
from shared.aio import wait_for
from shared.errors import Unavailable
from shared.eventstore.log import StoredEvent
from shared.eventstore.subscription import LogSession
from shared.logs import get_logger
from shared.postgres import CONNECTION_LOST, SESSION_SECONDS

POLL_SECONDS = 0.25  # longest sleep without a NOTIFY
RECONNECT_SECONDS = 0.25
MAX_BUFFERED = 256  # events of one subscription
PAGE = MAX_BUFFERED // 2  # events read at a time: a consumer that empties its buffer in between is never too slow
PAGE_BYTES = 1024 * 1024  # of their JSON, and one event more

OTHER_LOG = "Another log has taken the place of this one."

_log = get_logger()


@dataclass
class SubscriptionClosed(Unavailable):
    """The subscription has ended; the client may subscribe again after its last position."""

    reason: str
    code = "no-longer-followed"
    title = "The subscription has ended"

    @property
    def detail(self) -> str:
        return self.reason


class Subscription:
    """The events that match one filter, after position `since`. The stream is cut off when its buffer is full."""

    def __init__(self, tail: LogTail, held: HeldByStream) -> None:
        self.since = tail.position
        self._tail = tail
        self._held = held
        self._buffer: deque[StoredEvent] = deque()
        self._wake = asyncio.Event()
        self._closed_because: str | None = None

    def offer(self, event: StoredEvent) -> None:
        if self._closed_because is not None:
            return
        if len(self._buffer) < MAX_BUFFERED:
            self._held.hold([event])
        else:
            self._held.cut()
        if self._held.is_cut:
            self.close("The client does not take its events fast enough.")
            return
        self._buffer.append(event)
        self._wake.set()

    def close(self, reason: str) -> None:
        self._closed_because = reason
        self._buffer.clear()
        self._wake.set()

    async def next(self, seconds: float) -> EventBatch:
        """The buffered events, once there is one or after so many seconds. The caller releases them. Raises
        `SubscriptionClosed`."""
        await wait_for(self._wake, seconds)
        if self._closed_because is not None:
            raise SubscriptionClosed(self._closed_because)
        # In one turn of the loop, so the buffer holds everything up to the tail's position.
        self._wake.clear()
        events = list(self._buffer)
        self._buffer.clear()
        return EventBatch(events, self._tail.position)


class LogTail:
    """`open_session` gets what the session calls when the log may have grown, and when its connection is lost."""

    def __init__(self, open_session: Callable[[Callable[[], None]], AbstractAsyncContextManager[LogSession]]) -> None:
        self.position = 0  # every event up to here was offered
        self._hash: bytes | None = None  # of the event at `position`; None: unknown
        self._log_id: UUID | None = None
        self._open_session = open_session
        self._lost = False  # the connection, and that was logged
        self._subscriptions: defaultdict[StreamFilter, set[Subscription]] = defaultdict(set)
        self._reading: asyncio.Task[None] | None = None
        self._hint = asyncio.Event()

    @contextmanager
    def subscribe(self, of: StreamFilter, log_id: UUID, position: int, held: HeldByStream) -> Iterator[Subscription]:
        """`position` is one that the log has reached; the subscription may begin later or earlier: see its `since`."""
        if self._reading is None:
            self.position, self._hash, self._log_id = position, None, log_id
            self._reading = asyncio.create_task(self._read(), name="tail")
        elif log_id != self._log_id:
            raise SubscriptionClosed(OTHER_LOG)
        subscription = Subscription(self, held)
        self._subscriptions[of].add(subscription)
        try:
            yield subscription
        finally:
            self._remove(of, subscription)

    def _remove(self, of: StreamFilter, subscription: Subscription) -> None:
        self._subscriptions[of].discard(subscription)
        if not self._subscriptions[of]:
            del self._subscriptions[of]
        if not self._subscriptions and self._reading is not None:
            self._reading.cancel()
            self._reading = None

    async def close(self) -> None:
        if (reading := self._reading) is not None:
            reading.cancel()
            await asyncio.wait([reading])

    async def _read(self) -> None:
        this = asyncio.current_task()
        reason = "The service stops."
        try:
            while True:
                try:
                    async with self._open_session(self._hint.set) as session:
                        await self._read_on(session, until=monotonic() + SESSION_SECONDS)
                except (*CONNECTION_LOST, asyncpg.SerializationError) as error:
                    # SerializationError: on a replica, what came from the primary conflicted with the statement.
                    if not self._lost:
                        _log.warning("log tail disconnected", error=repr(error))
                    self._lost = True
                    await asyncio.sleep(RECONNECT_SECONDS)
        except SubscriptionClosed as error:
            reason = error.reason
            _log.warning("log tail ended", reason=reason)
        except Exception as error:  # noqa: BLE001 - a defect; the subscriptions must end rather than wait for ever
            reason = "The log cannot be read."
            _log.error("log tail failed", exc_info=error)
        finally:
            if self._reading is this:  # else the last subscription ended, and another task may read by now
                self._reading = None
                for subscription in [one for some in self._subscriptions.values() for one in some]:
                    subscription.close(reason)

    async def _read_on(self, session: LogSession, until: float) -> None:
        await self._check_hash(session)
        self._lost = False
        while monotonic() < until:
            self._hint.clear()  # before reading: a hint that comes meanwhile ends the wait below
            if not await self._read_page(session):
                await wait_for(self._hint, POLL_SECONDS)

    async def _check_hash(self, session: LogSession) -> None:
        """Raises `SubscriptionClosed` where the log was restored to an older state while the connection was lost."""
        found = None
        if self.position:
            events, _ = await session.read(self.position - 1, 1)
            found = events[0].hash if events else None
        if self._hash is not None and found != self._hash:
            raise SubscriptionClosed("The log was restored and has other events now.")
        self._hash = found

    async def _read_page(self, session: LogSession) -> bool:
        """Returns whether there may be more."""
        head = await session.read_head()
        if head.log_id != self._log_id:
            raise SubscriptionClosed(OTHER_LOG)
        if head.position <= self.position:
            return False
        events, more = await session.read(self.position, PAGE, PAGE_BYTES)
        for event in events:
            for of in filters_of(event):
                for subscription in [*self._subscriptions.get(of, ())]:
                    subscription.offer(event)
            self.position, self._hash = event.position, event.hash
        return more
