"""`kill -9` of a process right before it sends a group, and between its commit and the acknowledgements."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from shared.eventstore import log as event_log
from tests.deciders import assert_decided_rightly
from tests.faults.shop import Shop, until_more
from tests.orders_command import REPOSITORY
from tests.roles import url_of
from tests.running import eventually
from tests.shared.hash_chain import assert_sound, first_hash


@pytest.mark.promise(
    "commands", "After a crash around the commit, a retry with the same key is carried out once and acknowledged"
)
@pytest.mark.parametrize("moment", ["append.sending", "append.committed"])
async def test_kill_9_around_an_append_loses_and_doubles_nothing_of_those_who_ask_again(
    moment: str, shop: Shop
) -> None:
    shop.command = shop.process("command", FAILPOINTS=f"{moment}=30*off->kill")
    await shop.start()
    customers = shop.customers()
    async with customers.ordering(8):
        assert await shop.command.until_it_ends() == -signal.SIGKILL
        again = shop.process("command", COMMAND_PORT=str(shop.command.port))
        again.port = shop.command.port
        await shop.start(again)
        await until_more(customers.acknowledged, 50)
    assert customers.asked_again > 0
    await shop.assert_all_is_well(customers.acknowledged)


class DecidingProcess:
    """A process of `tests.faults.deciding_process`, to be killed. `appended` and `refused` are what it was told."""

    def __init__(self, directory: Path, database_url: str, name: str, failpoints: str) -> None:
        self._told = directory / name
        url = url_of(database_url, "orders_command")
        with self._told.open("wb") as file:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.deciding_process", url, name],
                stdout=file,
                cwd=REPOSITORY,
                env={**os.environ, "FAILPOINTS": failpoints},
            )

    async def until_killed(self, after: int) -> None:
        """By its failpoint, or from outside once it was told of so many commands."""
        await eventually(lambda: self._process.poll() is not None or len(self._lines()) >= after, seconds=60)
        self._process.kill()
        assert await asyncio.to_thread(self._process.wait) == -signal.SIGKILL

    def told(self, *, appended: bool) -> set[str]:
        return {command for command, was in self._lines() if was == str(appended)}

    def _lines(self) -> list[list[str]]:
        return [line.split() for line in self._told.read_text().splitlines(keepends=True) if line.endswith("\n")]


@pytest.mark.promise("commands", "No command is appended that was decided on an event which was not")
async def test_kill_9_of_processes_that_decide_ahead_on_shared_streams_appends_nothing_on_other_events(
    tmp_path: Path, database_url: str
) -> None:
    killed: list[DecidingProcess] = []
    for life in range(2):
        processes = [
            DecidingProcess(tmp_path, database_url, f"{life}-{number}", failpoints)
            for number, failpoints in enumerate(["append.sending=40*off->kill", "append.committed=60*off->kill", ""])
        ]
        await asyncio.gather(*(process.until_killed(after=300) for process in processes))
        killed += processes
    connection = await asyncpg.connect(database_url)
    log = [event async for event in event_log.read_all(connection)]
    log_id = (await event_log.read_head(connection)).log_id
    await connection.close()
    logged = assert_decided_rightly(log)
    assert_sound(log, first_hash(log_id))
    assert len(logged) > 100
    for process in killed:
        assert process.told(appended=True) <= logged
        assert process.told(appended=False).isdisjoint(logged)
