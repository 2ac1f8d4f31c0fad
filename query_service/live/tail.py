"""One reader of the log's end for a whole process: reads each new event once and hands it to those who follow it.

It reads only while somebody follows. `NOTIFY` wakes it early; it polls as well, and where it cannot listen, on a
replica, it only polls. Positions are dense, so after a lost connection it goes on where it was: nothing is missed,
nothing is repeated.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import TypeAlias
from uuid import UUID

import asyncpg

from query_service.live import log
from query_service.live.log import Progress, Subject
from shared.aggregates.order import ORDER
from shared.aio import wait_for
from shared.errors import Unavailable
from shared.eventstore import log as event_log
from shared.eventstore.log import StoredEvent
from shared.logs import get_logger
from shared.postgres import ANSWER_SECONDS, CONNECTION_LOST

POLL_SECONDS = 0.25  # longest sleep without a NOTIFY
RECONNECT_SECONDS = 0.25
MOST_WAITING = 256  # events that a follower has not taken yet
BATCH = MOST_WAITING // 2  # read at a time: one who takes what there is in between is never too slow

OTHER_LOG = "Another log has taken the place of this one."

_log = get_logger()

Session: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@dataclass
class NoLongerFollowed(Unavailable):
    """There is nothing more to be had from a subscription; where it stood, it can be taken up again."""

    reason: str
    code = "no-longer-followed"
    title = "The events are not followed any more"

    @property
    def detail(self) -> str:
        return self.reason


class Subscription:
    """The events of one subject from `since` on. Whoever does not take them in time loses it; `too_slow` is called."""

    def __init__(self, tail: Tail, too_slow: Callable[[], None]) -> None:
        self.since = tail.position
        self._tail = tail
        self._too_slow = too_slow
        self._waiting: deque[StoredEvent] = deque()
        self._wake = asyncio.Event()
        self._ended: str | None = None

    def offer(self, event: StoredEvent) -> None:
        if self._ended is not None:
            return
        if len(self._waiting) == MOST_WAITING:
            self.end("The client does not take its events fast enough.")
            self._too_slow()
            return
        self._waiting.append(event)
        self._wake.set()

    def end(self, reason: str) -> None:
        self._ended = reason
        self._waiting.clear()
        self._wake.set()

    async def next(self, seconds: float) -> Progress:
        """What is there, once there is something or after so many seconds. Raises `NoLongerFollowed`."""
        await wait_for(self._wake, seconds)
        if self._ended is not None:
            raise NoLongerFollowed(self._ended)
        # In one turn of the loop: what was taken is everything up to where the tail is now.
        self._wake.clear()
        events = list(self._waiting)
        self._waiting.clear()
        return Progress(events, self._tail.position)


class Tail:
    def __init__(self, connect: Callable[[], Awaitable[Session]]) -> None:
        self.position = 0  # everything up to here was handed over
        self._hash: bytes | None = None  # of the last event that was handed over, where one is known
        self._log_id: UUID | None = None
        self._connect = connect
        self._away = False  # and that was said
        self._followers: defaultdict[Subject, set[Subscription]] = defaultdict(set)
        self._reading: asyncio.Task[None] | None = None
        self._hint = asyncio.Event()

    @contextmanager
    def subscribe(
        self, subject: Subject, log_id: UUID, position: int, too_slow: Callable[[], None]
    ) -> Iterator[Subscription]:
        """`position` is one that log has reached; the subscription may begin later (or earlier): see its `since`."""
        if self._reading is None:
            self.position, self._hash, self._log_id = position, None, log_id
            self._reading = asyncio.create_task(self._read(), name="tail")
        elif log_id != self._log_id:
            raise NoLongerFollowed(OTHER_LOG)
        subscription = Subscription(self, too_slow)
        self._followers[subject].add(subscription)
        try:
            yield subscription
        finally:
            self._remove(subject, subscription)

    def _remove(self, subject: Subject, subscription: Subscription) -> None:
        self._followers[subject].discard(subscription)
        if not self._followers[subject]:
            del self._followers[subject]
        if not self._followers and self._reading is not None:
            self._reading.cancel()
            self._reading = None

    async def close(self) -> None:
        if (reading := self._reading) is not None:
            reading.cancel()
            await asyncio.wait([reading])

    async def _read(self) -> None:
        this = asyncio.current_task()
        reason = "The service stops following the log."
        try:
            while True:
                try:
                    async with self._session() as session:
                        await self._read_on(session)
                except (*CONNECTION_LOST, asyncpg.SerializationError) as error:
                    # SerializationError: on a replica, the statement stood in the way of what came from the primary.
                    if not self._away:
                        _log.warning("the log cannot be followed, PostgreSQL is away", error=repr(error))
                    self._away = True
                await asyncio.sleep(RECONNECT_SECONDS)
        except NoLongerFollowed as error:
            reason = error.reason
            _log.warning("event streams end", reason=reason)
        except Exception as error:  # noqa: BLE001 - those who follow must not wait for what never comes
            reason = "The log cannot be followed."
            _log.error(reason, exc_info=error)
        finally:
            if self._reading is this:  # else nobody followed any more, and somebody may again by now
                self._reading = None
                for subscription in [one for some in self._followers.values() for one in some]:
                    subscription.end(reason)

    @asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        session = await self._connect()
        try:
            session.add_termination_listener(lambda *_: self._hint.set())
            with suppress(asyncpg.ReadOnlySQLTransactionError):  # a replica notifies nobody
                await session.add_listener(event_log.CHANNEL, lambda *_: self._hint.set())
            yield session
        finally:
            session.terminate()  # not close(): that waits for the server, which may be the one that is gone

    async def _read_on(self, session: Session) -> None:
        async with asyncio.timeout(ANSWER_SECONDS):
            await self._check_past(session)
        self._away = False
        while True:
            self._hint.clear()  # before reading: a hint that comes meanwhile is kept for the sleep below
            async with asyncio.timeout(ANSWER_SECONDS):
                more = await self._read_batch(session)
            if not more:
                await wait_for(self._hint, POLL_SECONDS)

    async def _check_past(self, session: Session) -> None:
        """The server may have been gone because the log was restored to an older state, and may have grown since."""
        found = await log.read_hash(session, self.position)
        if self._hash is not None and found != self._hash:
            raise NoLongerFollowed("The log has another past than the one that was followed.")
        self._hash = found

    async def _read_batch(self, session: Session) -> bool:
        """Whether there may be more."""
        head = await event_log.read_head(session)
        if head.log_id != self._log_id:
            raise NoLongerFollowed(OTHER_LOG)
        if head.position <= self.position:
            return False
        batch = await log.read_all(session, self.position, BATCH)
        for event, customer_id in batch:
            for subscription in self._followers_of(event, customer_id):
                subscription.offer(event)
            self.position, self._hash = event.position, event.hash
        return len(batch) == BATCH

    def _followers_of(self, event: StoredEvent, customer_id: str | None) -> list[Subscription]:
        order_id = ORDER.id_of(event.stream_id)
        subjects = [] if order_id is None else [Subject("order", order_id)]
        if customer_id is not None:
            subjects.append(Subject("customer", customer_id))
        return [subscription for subject in subjects for subscription in self._followers.get(subject, ())]
