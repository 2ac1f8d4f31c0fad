"""A disk that is full costs what is written there, and nothing once there is space again."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import time
from collections.abc import AsyncIterator
from errno import ENOSPC
from pathlib import Path

import asyncpg
import httpx
import pytest

from cli.failure import CommandFailed
from cli.projection_admin.admin import ProjectionAdmin, administer
from cli.stack.server import Server
from cli.stack.supervisor import StopRequested, StopSignals, Supervisor
from shared.settings import Settings
from tests.faults.shop import Servers, Shop
from tests.given_when_then import problem
from tests.orders import order_body
from tests.running import running_command_service


@pytest.fixture
async def shop(database_url: str, redis_url: str, tmp_path: Path) -> AsyncIterator[Shop]:
    """Its processes write their logs to a disk that is full."""
    for number, kind in enumerate(("command", "query", "projector")):
        (tmp_path / f"{kind}-{number}.log").symlink_to("/dev/full")
    shop = Shop(tmp_path, Servers(database_url, redis_url))
    yield shop
    shop.close()


@pytest.mark.subprocess
@pytest.mark.promise("failures", "Logs that cannot be written, as on a full disk, stop no process")
async def test_processes_whose_logs_cannot_be_written_do_their_work(
    shop: Shop, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await shop.start()
    async with httpx.AsyncClient(timeout=30) as client:
        async with connection.transaction():
            await connection.execute("select from log_head for update")
            refused = await client.post(f"{shop.command.url}/orders", json=order_body())
            problem(refused, 504, "outcome-unknown")  # which is logged
        placed = await client.post(f"{shop.command.url}/orders", json=order_body(order_id="42"))
        assert placed.status_code == 201
        token = {"Consistency-Token": placed.headers["consistency-token"], "Prefer": "wait=20"}
        assert (await client.get(f"{shop.query.url}/orders/42", headers=token)).status_code == 200


_FULL = """
create function no_space() returns trigger language plpgsql as $$
begin raise disk_full using message = 'could not extend file "base/1/2": No space left on device'; end $$;
grant execute on function no_space() to public;
create trigger no_space before insert on events execute function no_space()
"""


@pytest.mark.promise(
    "failures", "While the disk of the log is full a command is refused with 503; with its key it is carried out later"
)
async def test_a_command_that_found_the_disk_of_the_log_full_is_carried_out_once_there_is_space(
    settings: Settings, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    key = {"Idempotency-Key": "a-full-disk"}
    async with running_command_service(settings) as url, httpx.AsyncClient(base_url=url, timeout=30) as client:
        before = await client.post("/orders", json=order_body())
        assert before.status_code == 201
        await connection.execute(_FULL)
        for _ in range(3):
            refused = await client.post("/orders", json=order_body(order_id="42"), headers=key)
            problem(refused, 503, "log-unavailable")
            assert refused.headers["retry-after"]
        assert (await client.get("/livez")).status_code == 200
        await connection.execute("drop trigger no_space on events")
        first = await client.post("/orders", json=order_body(order_id="42"), headers=key)
        again = await client.post("/orders", json=order_body(order_id="42"), headers=key)
    assert (first.status_code, again.status_code) == (201, 201)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert first.json() == again.json()
    assert await connection.fetchval("select count(*) from events") == 2


async def test_a_verification_without_space_says_so(
    database_url: str, redis_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("REDIS_URL", redis_url)

    async def fold(_: ProjectionAdmin) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with pytest.raises(CommandFailed, match=r"temporary file of the verification cannot be written: .* disk is full"):
        await asyncio.to_thread(administer, "orders", None, fold)


class _Sleeper(Server):
    """A server that does nothing."""

    name = "sleeper"

    def __init__(self, log: Path) -> None:
        self.log = log
        self.log.touch()
        self.spawned = 0

    def spawn(self) -> None:
        self.spawned += 1
        self.process = subprocess.Popen(["sleep", "600"])

    def ready(self) -> bool:
        return True

    @property
    def state(self) -> str:
        return "starting"


class _Signals(StopSignals):
    """Of a user who stops the stack once the server runs a second time."""

    def __init__(self, server: _Sleeper) -> None:
        self._server = server

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def check(self) -> None:
        if self._server.spawned == 2 and self._server.pid is not None:
            raise StopRequested


@pytest.mark.subprocess
@pytest.mark.promise("orders-up", "`orders up` restarts what dies also while its disk is full")
def test_what_dies_is_restarted_although_the_descriptor_cannot_be_written(tmp_path: Path) -> None:
    server = _Sleeper(tmp_path / "log")

    def save() -> None:
        if server.spawned == 2:
            raise OSError(ENOSPC, "No space left on device")

    supervisor = Supervisor(_Signals(server), tell=lambda _: None, changed=save)
    supervisor.start([server])
    server.kill()
    with pytest.raises(StopRequested):
        supervisor.run()
    server.kill()
