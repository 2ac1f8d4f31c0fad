"""The logs that are measured have the shape that the rows say they have."""

from __future__ import annotations

import asyncio
from statistics import median

import asyncpg
import pytest

from bench import orders

EVENTS = 16_000


@pytest.mark.parametrize(("apart", "at_least", "at_most"), [(0, 3, 1_000), (4_000, 3_500, 4_500)])
async def test_the_events_of_an_order_lie_as_far_apart_as_is_said(
    apart: int, at_least: int, at_most: int, database_url: str, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    end = await asyncio.to_thread(orders.fill, database_url, EVENTS, 0, apart)

    spans = await connection.fetch(
        "select count(*) as events, max(position) - min(position) as span from events group by stream_id"
    )
    assert len(spans) == end == EVENTS // orders.EVENTS_OF_AN_ORDER
    assert {row["events"] for row in spans} == {orders.EVENTS_OF_AN_ORDER}
    assert at_least <= median(row["span"] for row in spans) <= at_most
    if not apart:
        assert max(row["span"] for row in spans) < at_most
