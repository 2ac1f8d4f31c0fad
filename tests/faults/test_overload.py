"""Twice as many orders as can be appended: as many as ever are placed, the others are told at once to come back.

The log is made the bottleneck (an append takes a while, a group is small), so that the figure is the service's and not
that of the machine, which also makes the load.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median

import asyncpg
import httpx
import psutil
import pytest

from tests.faults.load import Load
from tests.faults.shop import Servers, Shop
from tests.running import eventually

GROUP = 32
APPEND_TAKES = 0.1  # seconds
QUEUE = 128
SECONDS = 15
LEAST_SHARE = 0.8  # of the peak; lower than what is promised, for machines that do other things as well
MEGABYTE = 1024 * 1024


_SLOW_LOG = f"""
create function take_a_while() returns trigger language plpgsql as $$
begin
    perform pg_sleep({APPEND_TAKES});
    return null;
end
$$;
create trigger takes_a_while after insert on events for each statement execute function take_a_while();
"""


@pytest.fixture
async def shop(tmp_path: Path, servers: Servers, connection: asyncpg.Connection[asyncpg.Record]) -> AsyncIterator[Shop]:
    await connection.execute(_SLOW_LOG)
    shop = Shop(tmp_path, servers, APPEND_GROUP_SIZE=str(GROUP), APPEND_QUEUE_SIZE=str(QUEUE), APPEND_WAIT_SECONDS="2")
    yield shop
    shop.close()


async def test_at_twice_the_sustainable_rate_as_many_orders_are_placed_as_ever(shop: Shop) -> None:
    await shop.start()
    async with Load(shop.command.url) as load:
        most = GROUP / APPEND_TAKES
        at_its_best = await load.order(most, 6)
        peak = at_its_best.mean_goodput(6)
        before = _memory(shop)

        overloaded = await load.order(2 * most, SECONDS)

        goodput = overloaded.mean_goodput(SECONDS)
        assert goodput >= LEAST_SHARE * peak, f"{goodput}/s of {peak}/s; {overloaded.outcomes}"
        assert overloaded.outcomes.keys() == {"placed", "overloaded"}
        assert median(overloaded.refused_after) < 0.5, "a refusal comes at once"
        assert _memory(shop) - before < 50 * MEGABYTE
        await eventually(lambda: _queue_is_empty(shop), seconds=30)
        afterwards = await load.order(most / 2, 3)
        assert afterwards.outcomes.keys() == {"placed"}
    await shop.assert_all_is_well([*at_its_best.promises, *overloaded.promises, *afterwards.promises])


def _memory(shop: Shop) -> int:
    """Bytes of the command service."""
    return int(psutil.Process(shop.command.pid).memory_info().rss)


async def _queue_is_empty(shop: Shop) -> bool:
    async with httpx.AsyncClient(base_url=shop.command.url) as commands:
        return "orders_append_queue_commands 0.0" in (await commands.get("/metrics")).text
