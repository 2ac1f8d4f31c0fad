"""Saves snapshots of streams that grew, in the background; several command services may do it at the same time."""

from __future__ import annotations

import asyncio

import asyncpg

from shared.eventstore.log import Connection
from shared.eventstore.snapshots import SnapshotPolicy, Snapshots, compact
from shared.logs import get_logger
from shared.postgres import CONNECTION_LOST
from shared.settings import Settings

_log = get_logger()


async def compact_for_ever(log: Connection, snapshots: Snapshots, settings: Settings) -> None:
    """Until cancelled; returns at once where the settings turn it off. After an error it tries again at the next
    interval."""
    every_events = SnapshotPolicy.of(settings).every_events
    if not settings.compact_interval_seconds or not every_events:
        return
    while True:
        await asyncio.sleep(settings.compact_interval_seconds)
        try:
            if saved := await compact(log, snapshots, every_events):
                _log.info("snapshots saved", streams=saved)
        except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
            _log.warning("compaction failed", error=repr(error))
