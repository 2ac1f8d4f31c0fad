"""Saves the snapshots that commands make due, in the background: no client waits for one."""

from __future__ import annotations

import asyncio
from datetime import datetime

import asyncpg

from command_service.state_cache import LatestState, StateCache
from shared.aggregates import aggregate_of
from shared.eventstore.snapshots import LoadedState, SnapshotPolicy, Snapshots
from shared.logs import get_logger
from shared.postgres import CONNECTION_LOST

MAX_SAVING = 4  # snapshots that are saved at the same time; of the others, a later command makes one due again

_log = get_logger()


class SnapshotSaver:
    def __init__(self, snapshots: Snapshots, policy: SnapshotPolicy, cache: StateCache) -> None:
        self._snapshots = snapshots
        self._policy = policy
        self._cache = cache
        self._saving: dict[str, asyncio.Task[None]] = {}

    async def close(self) -> None:
        """Waits for the snapshots that are being saved."""
        await asyncio.gather(*self._saving.values())

    def save_if_due(self, stream_id: str, state: LatestState, appended: int, position: int, now: datetime) -> None:
        """`state` is committed, after so many events, at that position. Not saved where a later state, which was on its
        way meanwhile, has a snapshot already."""
        if not self._policy.is_due(state.loaded, appended, now):
            return
        latest = self._cache.get(stream_id) or state
        loaded = state.loaded.with_snapshot_of(latest.loaded)
        if stream_id in self._saving or not self._policy.is_due(loaded, appended, now):
            return
        if len(self._saving) >= MAX_SAVING:
            return
        saved = loaded._replace(position=position)
        self._saving[stream_id] = asyncio.create_task(self._save(stream_id, saved))
        latest.loaded = latest.loaded.with_snapshot_of(saved.with_snapshot(now))

    async def _save(self, stream_id: str, loaded: LoadedState) -> None:
        try:
            await self._snapshots.save(aggregate_of(stream_id), stream_id, loaded)
        except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
            # Nothing is lost: the log has the events, and the next command that makes a snapshot due tries again.
            _log.warning("snapshot not saved", stream_id=stream_id, version=loaded.version, error=repr(error))
        finally:
            del self._saving[stream_id]
