"""Keeps snapshots of streams that grew, in the background; every projector process does it, harmlessly twice."""

from __future__ import annotations

import asyncio

from shared.eventstore import snapshots
from shared.eventstore.log import Connection
from shared.logs import get_logger
from shared.postgres import CONNECTION_LOST
from shared.settings import Settings

_log = get_logger()


async def compact_for_ever(log: Connection, settings: Settings) -> None:
    """Until cancelled; returns at once where the settings turn it off. A database that is away is asked next time."""
    if not settings.compact_interval_seconds or not settings.snapshot_every_events:
        return
    while True:
        await asyncio.sleep(settings.compact_interval_seconds)
        try:
            if kept := await snapshots.compact(log, settings.snapshot_every_events):
                _log.info("snapshots kept", streams=kept)
        except CONNECTION_LOST as error:
            _log.warning("no compaction, PostgreSQL is away", error=repr(error))
