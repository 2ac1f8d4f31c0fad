"""The work of the active process runner, with one session: it follows the log and brings events to processes."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec

from command_service.processes import progress
from command_service.processes.agenda import Agenda
from command_service.processes.dispatcher import Dispatcher, persist
from command_service.processes.measures import forget, measure, step_taken
from command_service.processes.progress import Progress
from command_service.processes.worker import ProcessWorker
from shared.aggregates.process import PROCESS
from shared.aio import cancel, wait_for
from shared.eventstore.log import StoredEvent
from shared.eventstore.subscription import LogSession
from shared.logs import get_logger

POLL_SECONDS = 0.5  # longest sleep without a NOTIFY
SAVE_SECONDS = 1.0  # between writes of the progress
PAGE_EVENTS, PAGE_BYTES = 256, 2**20
AT_ONCE = 32  # processes to which new events are brought at once
BACKLOG_AT_ONCE = 16  # the same, of events of the backlog

_log = get_logger()


class ActiveRunner:
    """What was appended before it became active is its backlog. It brings the backlog to the processes beside newer
    events, so that new processes do not wait for it."""

    def __init__(self, session: LogSession, worker: ProcessWorker, wake: asyncio.Event, stop: asyncio.Event) -> None:
        """`wake` is set when the log may have grown, `stop` when it is to end."""
        self._session = session
        self._worker = worker
        self._wake = wake
        self._stop = stop
        self._agenda = Agenda()
        self._saved: Progress | None = None
        self._followed = 0  # up to this position, the agenda has the log
        self._began_at = 0
        self._backlog = 0  # up to this position, the backlog was brought to the processes; it ends with `_began_at`
        self._received = 0  # and up to this one, what is newer

    async def begin(self) -> None:
        """Reads what processes wait for."""
        self._began_at = self._received = (await self._session.read_head()).position
        async with self._session.exclusive() as connection:
            self._saved = await progress.read_progress(connection)
            self._agenda = await progress.read_agenda(connection)
        # Without a saved progress, at the first start or after a restore, the log says where processes began.
        self._followed, self._backlog = self._saved or (0, self._began_at)
        while self._followed < self._began_at:  # what was waited for may have been done since
            events = await self._read(self._followed, self._began_at)
            if self._saved is None:
                begun = (event.position - 1 for event in events if PROCESS.id_of(event.stream_id) is not None)
                self._backlog = min(self._backlog, next(begun, self._backlog))
            self._apply(events)
        _log.info("process runner active", events=self._began_at - self._backlog, processes=len(self._agenda.processes))
        await self._save()

    async def run(self) -> None:
        """Until it is to stop. Raises what is in `CONNECTION_LOST` when the session is lost, and the lease with it."""
        dispatcher = Dispatcher(self._worker, self._agenda, self._began_at)
        dispatcher.add(self._agenda.pending(), self._began_at)
        following = asyncio.create_task(self._follow(dispatcher), name="processes-following")
        others = [
            asyncio.create_task(self._catch_up(), name="processes-backlog"),
            asyncio.create_task(dispatcher.run(), name="processes-dispatcher"),
            asyncio.create_task(self._save_regularly(), name="processes-progress"),
        ]
        left = {following, *others}
        try:
            while following in left:
                done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            await cancel(following, *others)
            forget()
        await self._save()

    async def _read(self, after: int, up_to: int) -> list[StoredEvent]:
        page = await self._session.read(after, min(PAGE_EVENTS, up_to - after), PAGE_BYTES)
        return page.events

    def _apply(self, events: Sequence[StoredEvent], dispatcher: Dispatcher | None = None) -> None:
        for stored in events:
            pending = self._agenda.apply(stored)
            self._followed = stored.position
            if pending and dispatcher is not None:
                dispatcher.add(pending, stored.position)

    async def _follow(self, dispatcher: Dispatcher) -> None:
        while not self._stop.is_set():
            self._wake.clear()
            page = await self._session.read(self._followed, PAGE_EVENTS, PAGE_BYTES)
            self._apply(page.events, dispatcher)
            await self._receive(page.events, AT_ONCE)
            self._received = self._followed
            if not page.more:
                await wait_for(self._wake, POLL_SECONDS)

    async def _catch_up(self) -> None:
        while self._backlog < self._began_at:
            events = await self._read(self._backlog, self._began_at)
            await self._receive(events, BACKLOG_AT_ONCE)
            self._backlog = events[-1].position

    async def _receive(self, events: Sequence[StoredEvent], at_once: int) -> None:
        slots = asyncio.Semaphore(at_once)

        async def receive(process_id: str, stored: StoredEvent) -> None:
            async with slots:
                await persist(lambda: self._worker.receive(process_id, stored))
                step_taken(process_id, "event", stored.recorded_at, datetime.now(UTC))

        await asyncio.gather(*(receive(*one) for one in self._chosen(events)))

    def _chosen(self, events: Sequence[StoredEvent]) -> Iterable[tuple[str, StoredEvent]]:
        """One event for each process: it sees its subject as it is at the append, not as it was at the event. Those
        that it appended itself are left out."""
        chosen: dict[str, StoredEvent] = {}
        appends: set[tuple[str, str]] = set()  # (command id, process id)
        for stored in events:
            command_id = msgspec.json.decode(stored.metadata)["command_id"]
            if (process_id := PROCESS.id_of(stored.stream_id)) is not None:
                appends.add((command_id, process_id))
                continue
            for process_id in self._worker.concerned(stored, self._agenda.processes):
                begins = process_id not in self._agenda.processes
                if (command_id, process_id) not in appends and not (begins and process_id in chosen):
                    chosen[process_id] = stored
        return chosen.items()

    # --- progress --------------------------------------------------------------------------------------------------

    async def _save_regularly(self) -> None:
        while True:
            await asyncio.sleep(SAVE_SECONDS)
            await self._save()
            measure(self._agenda, datetime.now(UTC))

    async def _save(self) -> None:
        async with self._session.exclusive() as connection:
            received = self._received if self._backlog >= self._began_at else self._backlog
            now, changed = Progress(self._followed, received), self._agenda.changed
            if now != self._saved:
                self._agenda.changed = set()
                await progress.save(connection, now, self._agenda.processes, changed)
                self._saved = now
