"""Handlers as in processes of their own, without HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from command_service.group_commit import GroupCommit
from command_service.handler import Handler
from shared.eventstore.blockers import SlowCallMonitor
from shared.eventstore.snapshots import SnapshotPolicy, Snapshots
from shared.eventstore.store import AppendSession, EventStore


async def _never() -> Any:
    raise NotImplementedError


@asynccontextmanager
async def committing(
    open_session: Callable[[], Awaitable[AppendSession]], *, queue_size: int = 1_000, group_size: int = 64
) -> AsyncIterator[GroupCommit]:
    """A group commit without a monitor of slow calls."""
    monitor = SlowCallMonitor(_never, 60.0, patience=60.0)
    group_commit = GroupCommit(
        open_session, monitor, queue_size=queue_size, group_size=group_size, wait_seconds=10.0, timeout_seconds=10.0
    )
    group_commit.start()
    try:
        yield group_commit
    finally:
        await group_commit.stop()
        await monitor.close()


@asynccontextmanager
async def handling(store: EventStore, open_session: Callable[[], Awaitable[AppendSession]]) -> AsyncIterator[Handler]:
    """The handler of a process of its own."""
    async with committing(open_session) as group_commit:
        handler = Handler(
            store,
            Snapshots(store, b"key"),
            group_commit,
            SnapshotPolicy(every_events=5),
            conflict_retries=8,
            cache_bytes=1_000_000,
            lock_timeout=10.0,
        )
        yield handler
    await handler.close()
