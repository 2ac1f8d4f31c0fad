"""NOTIFY never arrives: it is a hint only, polling alone keeps the lag bounded."""

from __future__ import annotations

import asyncpg
import httpx
import pytest

from shared.eventstore.log import CHANNEL
from tests.faults.shop import Shop, until_more
from tests.recording import lose_every_notification
from tests.running import eventually

POLL_SECONDS = 0.5
# A poll, a batch and a machine that does other things; far below the level at which an operator is called (2 s).
LONGEST_LAG_MS = 1_500


@pytest.mark.promise("read-models", "Polling alone bounds the lag when no NOTIFY arrives")
async def test_without_any_notification_polling_keeps_the_lag_bounded(shop: Shop) -> None:
    connection = await asyncpg.connect(shop.servers.database_url)
    await lose_every_notification(connection)
    received: list[object] = []
    await connection.add_listener(CHANNEL, lambda *notification: received.append(notification))
    projector = shop.process("projector", PROJECTOR_POLL_SECONDS=str(POLL_SECONDS))
    await shop.start(shop.command, projector, shop.query)
    customers = shop.customers()
    lags: list[int] = []
    async with customers.ordering(2), httpx.AsyncClient(base_url=shop.query.url, timeout=10) as queries:
        for _ in range(20):
            await until_more(customers.acknowledged, 20)
            statuses = (await queries.get("/projections")).json()["projections"]
            lags += [status["time_lag_ms"] for status in statuses]
    await shop.assert_all_is_well(customers.acknowledged, seconds=5)
    assert received == []
    assert max(lags) < LONGEST_LAG_MS, lags
    await eventually(lambda: _caught_up(shop))
    await connection.close()


async def _caught_up(shop: Shop) -> bool:
    async with httpx.AsyncClient(base_url=shop.query.url, timeout=10) as queries:
        statuses = (await queries.get("/projections")).json()["projections"]
    return all(status["time_lag_ms"] == status["position_lag"] == 0 for status in statuses)
