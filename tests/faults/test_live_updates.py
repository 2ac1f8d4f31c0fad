"""Event streams of real processes, one of which is told to stop."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from time import monotonic

import asyncpg
import httpx
import pytest

from tests.faults.shop import Process, Shop, until_more
from tests.query_service.event_source import following
from tests.running import eventually

CUSTOMER = "c0"  # one of those who order
STREAMS = 20


def client_of(process: Process) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=process.url, timeout=20)


@pytest.mark.promise("live-updates", "Streams of a stopping service end at once and continue at another without a gap")
async def test_streams_of_a_service_that_is_told_to_stop_go_on_at_another_without_a_gap(shop: Shop) -> None:
    another = shop.process("query")
    await shop.start(shop.command, shop.projector, shop.query, another)
    customers = shop.customers()
    path = f"/customers/{CUSTOMER}/orders/events"
    async with customers.ordering(2), client_of(shop.query) as one, client_of(another) as other:
        await until_more(customers.acknowledged)
        async with AsyncExitStack() as streams:
            ended = [await streams.enter_async_context(following(one, path, 0)) for _ in range(STREAMS)]
            for source in ended:
                await source.until(5)
            stopping_at = monotonic()
            await asyncio.to_thread(shop.query.stop)
            assert monotonic() - stopping_at < 5.0
            await eventually(lambda: all(source.ended for source in ended))
        await until_more(customers.acknowledged)
        async with AsyncExitStack() as streams:
            resumed = [await streams.enter_async_context(following(other, path, source.last_id)) for source in ended]
            await eventually(lambda: all(source.messages for source in resumed))
            await until_more(customers.acknowledged)
            last = (await _positions_in_log(shop))[-1]
            await eventually(lambda: all(source.positions[-1] >= last for source in resumed))
    expected = await _positions_in_log(shop)
    for before, after in zip(ended, resumed, strict=True):
        told = [*before.positions, *after.positions]
        assert told == expected[: len(told)]


async def _positions_in_log(shop: Shop) -> list[int]:
    connection = await asyncpg.connect(shop.servers.database_url)
    try:
        rows = await connection.fetch(
            "select position from events where stream_id in"
            " (select stream_id from events where version = 1 and data ->> 'customer_id' = $1) order by position",
            CUSTOMER,
        )
        return [row["position"] for row in rows]
    finally:
        await connection.close()
