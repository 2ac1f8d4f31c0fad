"""A rolling deploy: a newer program writes a version of an event that the running projector does not know."""

from __future__ import annotations

import json

import asyncpg
import httpx
import pytest

from shared.eventstore import codec
from tests.acknowledgements import assert_each_can_be_read
from tests.faults.next_release import NEWER_VERSION
from tests.faults.shop import Shop, until_more
from tests.orders import new_order_id, placed
from tests.recording import Recorder
from tests.running import eventually


@pytest.mark.promise(
    "rebuilds", "In a rolling deploy the old projector stops before a newer event and the new one continues"
)
async def test_the_old_projector_stops_before_a_newer_event_and_the_newer_one_continues(
    shop: Shop, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await shop.start()
    recorder = Recorder(connection)
    customers = shop.customers()
    async with customers.ordering(2):
        await until_more(customers.acknowledged)
        event_type, _, data = codec.encode(placed())
        newer_data = json.dumps({**json.loads(data), "channel": "kiosk"})
        order_id = new_order_id()
        newer = await recorder.record_raw(order_id, event_type, NEWER_VERSION, newer_data)
        await eventually(lambda: _position_is(shop, newer - 1))
        await eventually(lambda: _says_why(shop, newer))
        await until_more(customers.acknowledged)
        assert await _position_is(shop, newer - 1), "nothing is skipped"

        # The next release is started beside it, as a rolling deploy does, and the old one is stopped then.
        release = shop.process("projector", release="newer-event")
        await shop.start(release)
        await eventually(lambda: _position_beyond(shop, newer))
        shop.projector.stop()
        await until_more(customers.acknowledged)
    token = customers.acknowledged[-1]["consistency_token"]
    recorded = {"command_id": None, "aggregate_id": order_id, "version": 1, "consistency_token": token}
    await shop.assert_all_is_well([recorded, *customers.acknowledged])
    await assert_each_can_be_read(shop.query.url, [recorded])
    log = shop.projector.log.read_text()
    assert f"OrderPlaced version {NEWER_VERSION} is unknown here, which reads versions 1 to {NEWER_VERSION - 1}" in log


async def _position_is(shop: Shop, position: int) -> bool:
    return await shop.position() == position


async def _position_beyond(shop: Shop, position: int) -> bool:
    return await shop.position() > position


async def _says_why(shop: Shop, position: int) -> bool:
    async with httpx.AsyncClient(base_url=shop.projector.url) as projector:
        answer = await projector.get("/readyz")
    return answer.status_code == 503 and f"event {position} (OrderPlaced of" in answer.json()["detail"]
