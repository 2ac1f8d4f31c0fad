"""Has effects carried out and fires timers, as the agenda of the active runner says."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime, timedelta
from random import uniform

from command_service.gateways.gateway import Gateway, GatewayUnavailable
from command_service.processes.agenda import Agenda, Pending, PendingEffect, PendingTimer
from command_service.processes.lanes import Lane, Schedule
from command_service.processes.measures import step_taken
from command_service.processes.worker import TRANSIENT, ProcessWorker
from shared.aio import cancel, wait_for
from shared.logs import get_logger

SLOTS = 32  # effects of one gateway, or timers, under way; others wait
POLL_SECONDS = 0.5  # a clock that was set is noticed within it
FIRST_RETRY_SECONDS, LAST_RETRY_SECONDS = 0.1, 300.0
MAX_ATTEMPTS = 300  # of an effect, a day; then its process is stuck
MAX_DEFECTS = 5  # attempts that fail otherwise than because the gateway or the log is away
FINISH_SECONDS = 3.0  # for what is under way when the runner stops

_log = get_logger()


class Dispatcher:
    """Of one active runner."""

    def __init__(self, worker: ProcessWorker, agenda: Agenda, began_at: int) -> None:
        """`began_at`: the end of the log when the runner became active."""
        self._worker = worker
        self._agenda = agenda
        self._began_at = began_at
        self._schedule = Schedule(agenda.has)
        self._lanes: dict[Gateway | None, Lane] = defaultdict(lambda: Lane(SLOTS))  # None: of the timers
        self._tasks: set[asyncio.Task[None]] = set()
        self._unsent: set[str] = set()  # names of effects
        self._attempts: dict[str, int] = defaultdict(int)  # by name
        self._wake = asyncio.Event()

    def add(self, pending: Iterable[Pending], position: int) -> None:
        """What is waited for from now on, as the event at that position says."""
        for one in pending:
            if isinstance(one, PendingTimer):
                self._schedule.add(one, one.due_at)
            else:
                if one.cause.position == position > self._began_at:  # else it may have been sent before
                    self._unsent.add(one.name)
                self._put(one)
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled; what is under way is then given some seconds."""
        try:
            while True:
                self._wake.clear()
                for pending in self._schedule.take_due(datetime.now(UTC)):
                    self._put(pending)
                for lane in self._lanes.values():
                    while (due := lane.start()) is not None:
                        self._start(due, lane)
                await wait_for(self._wake, self._pause())
        finally:
            if self._tasks:
                await asyncio.wait(self._tasks, timeout=FINISH_SECONDS)
            await cancel(*self._tasks)

    def _put(self, pending: Pending) -> None:
        gateway = self._worker.gateway_of(pending) if isinstance(pending, PendingEffect) else None
        process = self._agenda.processes.get(pending.process_id)
        if process is not None:
            self._lanes[gateway].put(pending, newer=process.begun_by > self._began_at)

    def _start(self, pending: Pending, lane: Lane) -> None:
        async def run() -> None:
            try:
                if not self._agenda.has(pending):
                    self._attempts.pop(pending.name, None)
                elif isinstance(pending, PendingEffect):
                    await self._carry_out(pending)
                else:
                    await self._fire(pending)
            finally:
                lane.finish(pending)
                self._wake.set()

        task = asyncio.create_task(run(), name=pending.name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry_out(self, effect: PendingEffect) -> None:
        first = effect.name in self._unsent
        self._unsent.discard(effect.name)
        try:
            await self._worker.carry_out(effect, first=first)
        except Exception as error:  # noqa: BLE001 - also a defect of a gateway concerns its effect alone
            await self._retry_or_give_up(effect, error)
        else:
            self._attempts.pop(effect.name, None)
            step_taken(effect.process_id, "answer", effect.cause.recorded_at, datetime.now(UTC))

    async def _retry_or_give_up(self, effect: PendingEffect, error: Exception) -> None:
        attempts = self._attempts[effect.name] = self._attempts[effect.name] + 1
        _log.warning("effect has no answer", effect_id=effect.name, attempts=attempts, error=repr(error))
        if attempts < (MAX_ATTEMPTS if isinstance(error, TRANSIENT) else MAX_DEFECTS):
            seconds = error.retry_after if isinstance(error, GatewayUnavailable) else 0.0
            self._schedule.add(effect, datetime.now(UTC) + timedelta(seconds=max(seconds, backoff(attempts))))
            return
        await persist(lambda: self._worker.give_up(effect, error))
        del self._attempts[effect.name]

    async def _fire(self, timer: PendingTimer) -> None:
        late = datetime.now(UTC) - timer.due_at
        _log.info("timer due", process_id=timer.process_id, timer=timer.timer, late_seconds=late.total_seconds())
        await persist(lambda: self._worker.fire(timer))
        step_taken(timer.process_id, "timer", timer.due_at, datetime.now(UTC))

    def _pause(self) -> float:
        due_at = self._schedule.next_due
        if due_at is None:
            return POLL_SECONDS
        return min(POLL_SECONDS, max(0.0, (due_at - datetime.now(UTC)).total_seconds()))


async def persist(attempt: Callable[[], Awaitable[None]]) -> None:
    """Until it succeeds. An error that is not transient concerns one process, and is logged: not even that it failed
    could be recorded."""
    failures = 0
    while True:
        try:
            await attempt()
        except TRANSIENT as error:
            failures += 1
            _log.warning("process not advanced; retrying", error=repr(error))
        except Exception:  # noqa: BLE001 - see above
            _log.exception("process not advanced")
            return
        else:
            return
        await asyncio.sleep(backoff(failures))


def backoff(failures: int) -> float:
    """Seconds before the next attempt, with jitter."""
    longest: float = min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** min(failures - 1, 20))
    return longest * uniform(0.5, 1)
