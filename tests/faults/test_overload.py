"""Twice as many orders as can be placed: as many as ever are placed, the others are told at once to come back.

What there is too little of, log or processor, is made scarce by waiting, so that the figure is the service's and not
that of the machine, which also makes the load.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any

import asyncpg
import httpx
import psutil
import pytest

from tests.faults.load import Load, Tally
from tests.faults.shop import Servers, Shop
from tests.running import eventually

LEAST_SHARE = 0.9  # of the peak
PEAK_SECONDS = 6
RECOVERY_SECONDS = 30
WATCH_SECONDS = 0.25
MEGABYTE = 1024 * 1024

Open = Callable[..., Shop]


@pytest.fixture
def open_shop(tmp_path: Path, servers: Servers) -> Iterator[Open]:
    """A shop with these settings, not started."""
    shops: list[Shop] = []

    def open_shop(**environment: str) -> Shop:
        shops.append(Shop(tmp_path, servers, None, **environment))
        return shops[-1]

    yield open_shop
    for shop in shops:
        shop.close()


class TestAtTwiceTheSustainableRate:
    @pytest.mark.promise(
        "overload",
        "At twice the rate that the log sustains, 90 % of the peak are placed, the rest refused at once",
    )
    @pytest.mark.promise("overload", "Under overload memory is bounded, and soon afterwards all orders are placed")
    async def test_of_the_log_as_many_orders_are_placed_as_ever(
        self, open_shop: Open, connection: asyncpg.Connection[asyncpg.Record]
    ) -> None:
        group, append_takes, queue = 32, 0.1, 192  # of which all customers, who have one address, get half
        await connection.execute(_slow_log(append_takes))
        shop = open_shop(APPEND_GROUP_SIZE=str(group), APPEND_QUEUE_SIZE=str(queue), APPEND_WAIT_SECONDS="2")
        await shop.start()
        await _assert_goodput_holds(shop, customers=2 * group, burst=2 * group, seconds=15)

    @pytest.mark.promise(
        "overload",
        "At twice the rate that the event loop sustains, 90 % of the peak are placed, the rest refused at once",
    )
    @pytest.mark.promise("overload", "Under overload memory is bounded, and soon afterwards all orders are placed")
    async def test_of_the_processor_as_many_orders_are_placed_as_ever_for_a_minute(self, open_shop: Open) -> None:
        milliseconds = 5
        # As slow as it is, more than these would be more than customers wait for.
        shop = open_shop(APPEND_QUEUE_SIZE="300", APPEND_WAIT_SECONDS="5", APPEND_TIMEOUT_SECONDS="10")
        shop.command = shop.process("command", FAILPOINTS=f"command.deciding=sleep({milliseconds})")
        await shop.start()
        # More customers at a time would wait for longer than it lets them.
        await _assert_goodput_holds(shop, customers=4, burst=60, seconds=60)


async def _assert_goodput_holds(shop: Shop, customers: int, burst: int, seconds: int) -> None:
    """What can be sustained is measured with so many customers; each waits for its answer."""
    async with Load(shop.command.url) as load:
        peak = await load.as_answered(customers, PEAK_SECONDS)
        assert peak.outcomes.keys() == {"placed"}, "as many as are answered is no overload"
        sustained = peak.mean_goodput(PEAK_SECONDS)
        memory = _memory(shop)

        async with _watched(lambda: _memory(shop)) as watched:
            overloaded = await load.order(2 * sustained, seconds)

        await eventually(lambda: _is_idle(shop), RECOVERY_SECONDS)
        at_once = await load.at_once(burst)
        assert at_once.outcomes.keys() == {"placed"}, "a burst is no overload"
        after = await load.as_answered(customers, PEAK_SECONDS)

    goodput, recovered = overloaded.mean_goodput(seconds), after.mean_goodput(PEAK_SECONDS)
    more_memory = max(watched) - memory
    rates = f"{goodput:.0f}/s, {sustained:.0f}/s before, {recovered:.0f}/s after"
    said = f"{rates}; {overloaded.outcomes}; {more_memory} bytes"
    assert goodput >= LEAST_SHARE * sustained, said
    assert recovered >= LEAST_SHARE * sustained, said
    assert overloaded.outcomes.keys() == {"placed", "overloaded"}, said
    assert median(overloaded.refused_after) < 0.5, "a refusal comes at once"
    assert more_memory < 50 * MEGABYTE, said
    await shop.assert_all_is_well(_acknowledged(peak, overloaded, at_once, after))


@asynccontextmanager
async def _watched(measure: Callable[[], int]) -> AsyncIterator[list[int]]:
    """What it measures again and again while the block runs."""
    seen = [measure()]

    async def watch() -> None:
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            seen.append(measure())

    watching = asyncio.create_task(watch())
    try:
        yield seen
    finally:
        watching.cancel()
        await asyncio.wait([watching])
        seen.append(measure())


def _slow_log(append_takes: float) -> str:
    return f"""
        create function take_a_while() returns trigger language plpgsql as $$
        begin
            perform pg_sleep({append_takes});
            return null;
        end
        $$;
        create trigger takes_a_while after insert on events for each statement execute function take_a_while();
    """


def _acknowledged(*tallies: Tally) -> list[dict[str, Any]]:
    return [acknowledgement for tally in tallies for acknowledgement in tally.acknowledged]


def _memory(shop: Shop) -> int:
    """Bytes of the command service."""
    return int(psutil.Process(shop.command.pid).memory_info().rss)


async def _is_idle(shop: Shop) -> bool:
    """Nothing waits, and nothing is refused for what was."""
    async with httpx.AsyncClient(base_url=shop.command.url) as commands:
        metrics = (await commands.get("/metrics")).text
    limit = next(line for line in metrics.splitlines() if line.startswith("orders_admission_limit_commands "))
    return "orders_append_queue_commands 0.0" in metrics and float(limit.split()[1]) >= 100
