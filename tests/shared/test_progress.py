"""How far behind read models are, from what their projectors reported and the log itself."""

from __future__ import annotations

from typing import TypeAlias
from uuid import uuid4

import asyncpg
import pytest

from shared.eventstore import log as event_log
from shared.read_models import progress
from shared.read_models.keys import Checkpoint
from shared.settings import Settings
from tests.orders import new_order_id, placed
from tests.recording import Recorder, make_older
from tests.roles import Role, url_of

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


@pytest.fixture
async def log(connection: Connection) -> Connection:
    """Three events, a minute old."""
    recorder = Recorder(connection)
    for _ in range(3):
        await recorder.record(new_order_id(), placed())
    await make_older(connection, 60)
    return connection


async def at(connection: Connection, position: int, ready_at: int = 0) -> Checkpoint:
    return Checkpoint((await event_log.read_head(connection)).log_id, position, ready_at, 1)


async def behind(connection: Connection) -> dict[str, float]:
    return {one.projection: one.seconds or 0.0 for one in await progress.read_behind(connection, ["orders"])}


async def test_a_read_model_that_nobody_ever_reported_is_not_behind(log: Connection) -> None:
    assert await behind(log) == {}


async def test_one_that_shows_everything_is_not_behind(log: Connection) -> None:
    await progress.report(log, "orders", await at(log, 3))
    assert await behind(log) == {}


async def test_the_lag_is_the_age_of_the_oldest_event_not_shown_and_grows_without_any_report(log: Connection) -> None:
    await progress.report(log, "orders", await at(log, 2))
    first = (await behind(log))["orders"]
    later = (await behind(log))["orders"]
    assert 60 <= first < later < 120


@pytest.mark.parametrize("state", ["emptied", "being built", "of another log"])
async def test_one_that_is_not_there_yet_is_not_behind(log: Connection, state: str) -> None:
    checkpoint = {
        "emptied": None,
        "being built": await at(log, 1, ready_at=2),
        "of another log": Checkpoint(uuid4(), 1, 0, 1),
    }[state]
    await progress.report(log, "orders", await at(log, 1))
    assert "orders" in await behind(log)
    await progress.report(log, "orders", checkpoint)
    assert await behind(log) == {}


async def test_the_slowest_partition_counts_and_one_that_is_no_more_does_not(log: Connection) -> None:
    await progress.report(log, "orders", await at(log, 3), 0, of=2)
    await progress.report(log, "orders", await at(log, 1), 1, of=2)
    assert "orders" in await behind(log)
    await progress.report(log, "orders", await at(log, 3), 0, of=1)
    assert await behind(log) == {}


async def test_only_those_asked_for_count(log: Connection) -> None:
    await progress.report(log, "revenue_by_day", await at(log, 0))
    assert await behind(log) == {}


async def test_the_projector_reports_and_the_command_service_can_but_read(log: Connection, settings: Settings) -> None:
    url = settings.database_url.get_secret_value()
    here = await at(log, 0)
    projector = await asyncpg.connect(url_of(url, "orders_projector"))
    await progress.report(projector, "orders", here)
    await projector.close()
    readers: tuple[Role, ...] = ("orders_command", "orders_auditor")
    for role in readers:
        connection = await asyncpg.connect(url_of(url, role))
        await connection.execute("set default_transaction_read_only = off")
        assert "orders" in await behind(connection)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await progress.report(connection, "orders", here)
        await connection.close()
