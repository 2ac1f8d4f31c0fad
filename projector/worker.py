"""Keeps one partition of a read model up to date for as long as the process lives: standby, active, or stuck and trying
again.

Nothing that goes wrong outside ends it: it lets go of the lease, so that another projector may do better, waits
a little longer each time and starts over from what the read model's own checkpoint says. Who gets which lease is for
`projector.crew`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from enum import StrEnum
from time import monotonic
from typing import Any, Generic, NamedTuple

from projector.engine import Engine
from projector.lease import Lease, lease_name
from projector.parking import poison_of
from projector.projection import D, Projection
from projector.routing import PoisonEvent
from projector.session import PROCESS_NAME, Session
from projector.stores import AWAY, Fenced, OtherCode, Shelf, Store
from shared.aio import wait_for
from shared.eventstore.blockers import SlowCallMonitor
from shared.logs import get_logger
from shared.read_models.keys import Generations
from shared.read_models.poison import Poison
from shared.settings import Settings

STANDBY_SECONDS = 1.0
LOOK_SECONDS = 0.25  # between looks at which generation is live, and what is asked to be tried again
FIRST_RETRY_SECONDS = 0.1
LAST_RETRY_SECONDS = 5.0
LAST_POISON_RETRY_SECONDS = 30.0
FINISH_SECONDS = 5.0  # for the batch in hand, where the work is to end; a stop in all is to take 20 s at most
BREAK_OFF_SECONDS = 3.0  # for a server to let go of it

_log = get_logger()


class Layout(NamedTuple):
    """The live generation, and into how many partitions it is divided."""

    generation: int
    partitions: int

    @classmethod
    def of(cls, generations: Generations) -> Layout:
        return cls(generations.live, generations.partitions_of(generations.live))


class State(StrEnum):
    STARTING = "starting"
    STANDBY = "standby"  # another projector is active
    WAITING = "waiting"  # its code is not the generation's: for a rebuild, or for the program whose code it is
    ACTIVE = "active"
    STUCK = "stuck"  # `Worker.reason` says why


class Worker(Generic[D]):
    """One partition of a generation of a read model, as this process sees it."""

    def __init__(
        self,
        settings: Settings,
        projection: Projection[D],
        shelf: Shelf,
        layout: Layout,
        partition: int,
        stalls: SlowCallMonitor,
        on_change: Callable[[], None],
    ) -> None:
        """`on_change` is called when it has given its lease back, and when it would take it again."""
        self.name = PROCESS_NAME
        self.state = State.STARTING
        self._reason = "The projector has not connected yet."
        self._heard_at: float | None = None  # by the clock of `monotonic`, of whoever is active
        self.poison: Poison | None = None  # the event that it is stuck before
        self.epoch: int | None = None  # of its last lease
        self.layout = layout
        self.partition = partition
        self.lease_name = lease_name(projection.name, layout.generation, partition)
        self.store = shelf.store(layout.generation, partition, layout.partitions)
        self._settings = settings
        self._projection = projection.part(partition, layout.partitions)
        self._shelf = shelf
        self._on_change = on_change
        self._stalls = stalls
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._held: Lease | None = None  # by that task
        self._able = True  # as far as it knows
        self._reached = True  # the store, when it was last asked
        self._dismissed = False
        self._failures = 0

    @property
    def projection(self) -> str:
        return self._projection.name

    @property
    def working(self) -> bool:
        """Whether it does its work, or another that was heard of lately does; else `reason` says what keeps it."""
        return self.state is State.ACTIVE or (
            self._leaves_it and self._silence < self._settings.heartbeat_stale_seconds
        )

    @property
    def reason(self) -> str:
        if not self._leaves_it:
            return self._reason
        since = "" if self._heard_at is None else f" for {self._silence:.0f} s"
        return f"There has been no sign of life from a projector{since}. {self._reason}".rstrip()

    @property
    def _leaves_it(self) -> bool:
        """The work, to another."""
        return self.state in (State.STANDBY, State.WAITING)

    @property
    def _silence(self) -> float:
        return float("inf") if self._heard_at is None else monotonic() - self._heard_at

    @property
    def speaks(self) -> bool:
        """Heartbeat and progress are those of whoever has the work, also while it is stuck."""
        return self.epoch is not None and self.state in (State.ACTIVE, State.STUCK)

    @property
    def idle(self) -> bool:
        """Neither at work nor resting after a failure."""
        return self._task is None and not self._dismissed

    def standing(self, session: Session) -> bool:
        """Whether it would do the work with a lease of that session, for all it knows: after a failure others may do
        better, so it leaves them the partition, and tries again only where there is nobody else.

        While it still works with the lease of a session that is lost, it could not take another.
        """
        free = self._task is None or (self._held is not None and self._held.session is session)
        return free and self._able and self._reached and not self._resting and not self._dismissed

    @property
    def _resting(self) -> bool:
        return self.state is State.STUCK and self._task is not None

    def start(self, held: Lease) -> None:
        """Works until `let_go`, until another generation is live, or until it fails; then gives the lease back."""
        self._stop.clear()
        self._held = held
        self._task = asyncio.create_task(self._work(held), name=f"projector-{self.lease_name}")

    def let_go(self) -> None:
        """Ends the work after the batch in hand."""
        self._stop.set()
        self._wake.set()

    def dismiss(self) -> None:
        """As `let_go`, and for ever."""
        self._dismissed = True
        self.let_go()

    async def ended(self) -> None:
        """Returns when the batch in hand is finished, or broken off because it takes long, as the removal of a whole
        read model may. Fence and checkpoint see to it that a batch is applied whole or not at all."""
        if (task := self._task) is None:
            return
        _, late = await asyncio.wait([task], timeout=FINISH_SECONDS)
        if late:
            _log.warning("breaking off what takes too long", projection=self.projection, partition=self.partition)
            if not task.cancelling():
                task.cancel()
            await asyncio.wait([task], timeout=BREAK_OFF_SECONDS)

    def wake(self) -> None:
        self._wake.set()

    def reached_store(self) -> None:
        """Who asks it now and then was answered."""
        self._reached = True

    def stand_by(self) -> None:
        """Another does the work, or is about to."""
        if not self._leaves_it:
            _log.info("standing by, another projector is active", projection=self.projection, partition=self.partition)
            self.state, self._reason, self.poison = State.STANDBY, "", None

    async def _work(self, held: Lease) -> None:
        seconds = 0.0
        try:
            await self._project(held)
        except asyncio.CancelledError:
            pass  # broken off by `ended`; the lease is given back as ever
        except Exception as error:  # noqa: BLE001 - told apart, logged and tried again; never skipped
            seconds = self._fail(error)
            if isinstance(error, AWAY):
                await self._shelf.reconnect()
        try:
            await held.release()
            self._on_change()
            await self._rest(seconds)
        finally:
            self._task = self._held = None
            self._on_change()

    async def _project(self, held: Lease) -> None:
        store, settings = self.store, self._settings
        engine = Engine(self._projection, store, held, settings.projector_batch_size, settings.projector_on_poison)
        asked: frozenset[str] = frozenset()
        look_at = 0.0
        while not self._stop.is_set():
            # Where the store was emptied or replaced, what is live may be another one, too.
            if engine.checkpoint is None or monotonic() >= look_at:
                if Layout.of(await self._shelf.generations()) != self.layout:
                    return
                asked = await store.retries()
                look_at = monotonic() + LOOK_SECONDS
            # Cleared before reading: a hint that comes while we read is kept for the sleep below.
            self._wake.clear()
            try:
                with self._stalls.watch(self._projection.name):
                    more = await engine.step(asked)
            except PoisonEvent as raised:
                self.epoch = held.epoch
                self._stuck_before(raised)
                await self._answer(store, asked)
                raise
            if self.state is not State.ACTIVE:
                _log.info(
                    "projecting",
                    projection=self.projection,
                    partition=self.partition,
                    generation=self.layout.generation,
                    epoch=held.epoch,
                )
            self.state, self.epoch, self._reason, self._failures = State.ACTIVE, held.epoch, "", 0
            self.poison, self._able, self._reached = None, True, True
            if asked and engine.checkpoint is not None:
                await self._answer(store, asked)
                asked = frozenset()
            if not more:
                # Polling is always enough: a hint may be lost.
                await wait_for(self._wake, self._settings.projector_poll_seconds)

    def _stuck_before(self, raised: PoisonEvent) -> None:
        self.state, self._reason = State.STUCK, f"Stopped before an event that cannot be applied: {raised}"
        self.poison = poison_of(raised)

    async def _answer(self, store: Store, asked: frozenset[str]) -> None:
        """Says how it is, and then that what was asked was tried: whoever asked looks in this order."""
        await self.say_alive(store)
        if asked:
            await store.retried(asked)

    async def say_alive(self, store: Store) -> None:
        if self.epoch is not None:
            await store.heartbeat(self.epoch, self.name, self.state, self._reason, self.poison)

    async def listen(self, store: Store) -> None:
        """For who has the work. Where nobody has, it says what keeps it from that itself."""
        excuse = self._reason if self.state in (State.WAITING, State.STUCK) else ""
        silence = await store.silence(self.name, self.state, excuse, self._settings.heartbeat_stale_seconds)
        self._heard_at = None if silence is None else monotonic() - silence

    def _fail(self, error: Exception) -> float:
        """Seconds to wait before the next try."""
        longest = LAST_RETRY_SECONDS
        about: dict[str, Any] = {"projection": self.projection, "partition": self.partition}
        self._able = isinstance(error, (Fenced, *AWAY))  # which may be over soon, or the same everywhere
        self._reached = not isinstance(error, AWAY)
        if not isinstance(error, PoisonEvent):
            self.poison = None
        match error:
            case PoisonEvent(event=event):
                longest = LAST_POISON_RETRY_SECONDS
                _log.error(
                    "stopped before an event that cannot be applied; nothing is skipped",
                    **about,
                    position=event.position,
                    stream_id=event.stream_id,
                    event_type=event.event_type,
                    schema_version=event.schema_version,
                    error=str(error.__cause__),
                    exc_info=error.__cause__,
                )
            case OtherCode():
                # During a deploy the other program goes on with it; afterwards a rebuild makes a generation of ours.
                if self._reason != str(error):
                    _log.warning("standing by", **about, reason=str(error))
                self.state, self._reason, self._failures = State.WAITING, str(error), 0
                return STANDBY_SECONDS
            case Fenced():
                self._reason = "Another projector has taken over."
                _log.warning("another projector has taken over; going back to standby", **about, epoch=self.epoch)
            case _ if isinstance(error, AWAY):
                self._reason = f"PostgreSQL or Redis is away or refuses: {type(error).__name__}: {error}"
                _log.warning("PostgreSQL or Redis is away or refuses; trying again", **about, error=repr(error))
            case _:
                self._reason = f"{type(error).__name__}: {error}"
                _log.error("the projector failed; trying again", **about, exc_info=error)
        self.state = State.STUCK
        self._failures += 1
        return min(longest, FIRST_RETRY_SECONDS * 2.0 ** min(self._failures - 1, 20))

    async def _rest(self, seconds: float) -> None:
        """Until the time is over, or somebody asks to try again at once."""
        deadline = monotonic() + seconds
        while not self._stop.is_set() and (left := deadline - monotonic()) > 0:
            await wait_for(self._stop, min(left, LOOK_SECONDS))
            with suppress(*AWAY):  # nobody can have asked
                if self.poison and await self.store.retries():
                    return
