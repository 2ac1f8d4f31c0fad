"""Runs the processes: follows the log, brings its events to them, and has done what they ask for.

One runner is active, the others stand by: the active one holds a lease. The lease saves work and guards nothing:
whatever two runners do at once takes effect once.
"""

from __future__ import annotations

import asyncio

from command_service.processes import progress
from command_service.processes.active_runner import ActiveRunner
from command_service.processes.dispatcher import backoff
from command_service.processes.progress import LEASE
from command_service.processes.worker import ProcessWorker
from shared.aio import wait_for
from shared.eventstore.lease import ForeignHolder
from shared.eventstore.subscription import LogSession, open_session
from shared.http.operations import NotReady
from shared.logs import get_logger
from shared.postgres import CONNECTION_LOST
from shared.settings import Settings

STANDBY_SECONDS = 1.0  # between attempts to become the active runner
LAST_RECONNECT_SECONDS = 5.0

_log = get_logger()


class ProcessRunner:
    def __init__(self, settings: Settings, worker: ProcessWorker) -> None:
        self._settings = settings
        self._worker = worker
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self._reason = "The process runner has not connected yet."
        self._foreign: ForeignHolder | None = None
        self._failures = 0  # in a row

    async def ready(self) -> None:
        """Raises `NotReady` unless it is active, or stands by for an active one."""
        if self._reason:
            raise NotReady(self._reason)

    async def run(self) -> None:
        """Until `stop`. No failure ends it: it starts over from what is in the log."""
        while not self._stop.is_set():
            try:
                async with open_session(self._settings, self._wake.set, role="processes", cached_pages=1) as session:
                    await self._run(session)
            except Exception as error:  # noqa: BLE001 - told apart, logged and tried again
                self._reason = f"The process runner failed: {error!r}"
                if isinstance(error, CONNECTION_LOST):
                    _log.warning("postgresql unavailable; retrying", error=repr(error))
                else:
                    _log.error("process runner failed; retrying", exc_info=error)
                self._failures += 1
                await wait_for(self._stop, min(LAST_RECONNECT_SECONDS, backoff(self._failures)))

    def stop(self) -> None:
        self._stop.set()
        self._wake.set()

    async def _run(self, session: LogSession) -> None:
        while not self._stop.is_set():
            async with session.exclusive() as connection:
                active = await progress.try_lease(connection)
                foreign = None if active else await progress.read_foreign_holder(connection)
            self._failures = 0
            if active:
                await self._run_active(session)
            else:
                self._reason = self._check_foreign(foreign)
                await wait_for(self._stop, STANDBY_SECONDS)

    async def _run_active(self, session: LogSession) -> None:
        self._reason = "The process runner reads what processes wait for."
        active = ActiveRunner(session, self._worker, self._wake, self._stop)
        await active.begin()
        self._reason = ""
        await active.run()

    def _check_foreign(self, foreign: ForeignHolder | None) -> str:
        """What keeps this runner from working; logs a holder once."""
        if foreign is None:
            self._foreign = None
            return ""
        if foreign != self._foreign:
            _log.error("lease held by a foreign session", **foreign._asdict())
        self._foreign = foreign
        return f"Lease {LEASE!r} is held by a foreign session: pid {foreign.pid}, user {foreign.user}."
