"""Whatever fails, no command is appended after other events than those that it was decided on."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from random import Random

import asyncpg
import pytest

from shared.eventstore.append_request import AppendRequest, AppendResult
from shared.eventstore.memory import InMemoryEventStore
from shared.eventstore.store import AppendSession, EventStore, PostgresAppendSession, PostgresEventStore
from tests.command_service.processes import committing
from tests.deciders import HOT, Deciders, assert_decided_rightly
from tests.shared.hash_chain import assert_sound, first_hash

PROCESSES = 3


class FlakyStore(InMemoryEventStore):
    """Loses the connection now and then, before it appends a group or after."""

    def __init__(self, random: Random) -> None:
        super().__init__()
        self._random = random

    async def append_group(self, group: Sequence[AppendRequest]) -> list[AppendResult]:
        for _ in range(self._random.randint(0, 3)):
            await asyncio.sleep(0)
        fate = self._random.random()
        if fate < 0.05:
            raise ConnectionError("lost before the append")
        results = await super().append_group(group)
        await asyncio.sleep(0)
        if fate > 0.95:
            raise ConnectionError("lost after the append")
        return results


async def give_commands(store: EventStore, sessions: Sequence[AppendSession], random: Random, commands: int) -> None:
    """From several processes at once. Then checks the log, and that it holds what they were told."""
    async with AsyncExitStack() as stack:
        commits = [await stack.enter_async_context(committing(_opening(session), group_size=8)) for session in sessions]
        processes = [Deciders(store, commit, random, f"{process}-") for process, commit in enumerate(commits)]
        await asyncio.gather(*(process.give(commands) for process in processes))
    log = [event async for event in store.read_all()]
    logged = assert_decided_rightly(log)
    assert_sound(log, first_hash((await store.read_head()).log_id))
    for process in processes:
        assert process.appended <= logged
        assert process.refused.isdisjoint(logged)
    assert sum(process.built_on_others for process in processes) > commands / 10
    assert await store.read_version(HOT) > commands / 10


def _opening(session: AppendSession) -> Callable[[], Awaitable[AppendSession]]:
    async def open_session() -> AppendSession:
        return session

    return open_session


@pytest.mark.promise("commands", "No command is appended that was decided on an event which was not")
@pytest.mark.parametrize("processes", [1, PROCESSES])
@pytest.mark.parametrize("seed", range(4))
async def test_in_memory_with_connections_that_are_lost(seed: int, processes: int) -> None:
    random = Random(seed)
    store = FlakyStore(random)
    await give_commands(store, [store] * processes, random, 150)


@pytest.mark.promise("commands", "No command is appended that was decided on an event which was not")
async def test_in_postgresql_by_several_processes(database_url: str) -> None:
    connections = [await asyncpg.connect(database_url) for _ in range(PROCESSES)]
    async with asyncpg.create_pool(database_url, min_size=1, max_size=PROCESSES) as pool:
        sessions = [PostgresAppendSession(connection) for connection in connections]
        await give_commands(PostgresEventStore(pool), sessions, Random(0), 150)
