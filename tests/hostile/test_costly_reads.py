"""Reads of the past that cost much do not delay other clients' reads."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from query_service import past_states
from shared.aggregates.order import ShippingAddressChanged
from shared.eventstore import log as event_log
from shared.read_models.keys import PartitionKeys
from shared.settings import Settings
from tests.hostile.clients import client_at
from tests.orders import placed
from tests.query_service.event_source import following
from tests.query_service.redis_read_model import write
from tests.recording import Recorder
from tests.running import running_query_service

LONG = 4_000  # events of one order
ORDERS = 9_000  # of other customers
FOLLOWERS = 100


@pytest.fixture
async def queries(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with running_query_service(settings) as queries:
        yield queries


async def record_long_order(recorder: Recorder, order_id: str) -> None:
    await recorder.record(order_id, placed())
    for _ in range(LONG // 1_000):
        await recorder.record(order_id, *[ShippingAddressChanged("elsewhere")] * 1_000)


@pytest.mark.promise("queries", "Folds of long streams delay neither histories nor the folds of other clients")
async def test_past_states_of_a_long_order_do_not_hold_up_others(
    queries: httpx.AsyncClient, recorder: Recorder
) -> None:
    await record_long_order(recorder, "long")
    await recorder.record("42", placed())
    now = datetime.now(UTC).isoformat()
    async with client_at("127.0.0.2", queries) as attacker, client_at("127.0.0.3", queries) as other:
        times = {"as_of": now, "known_at": now}
        began = monotonic()
        attack = [asyncio.create_task(attacker.get("/orders/long", params=times)) for _ in range(200)]
        waits = []
        for _ in range(5):
            for path in ("/orders/42/history", f"/orders/42?as_of={now.replace('+', '%2B')}"):
                started = monotonic()
                assert (await other.get(path)).status_code == 200
                waits.append(monotonic() - started)
        answers = await asyncio.gather(*attack)
        seconds = monotonic() - began
    assert max(waits) < seconds / 2, "one that waits behind all of them would wait for nearly as long as they take"
    codes = {200 if answer.is_success else answer.json()["code"] for answer in answers}
    assert codes == {200, "too-many-costly-reads"}, "those that wait are bounded, and say so"


@pytest.mark.promise("queries", "A past state is folded from the nearest one that was folded before")
async def test_a_past_state_is_folded_from_the_nearest_one_that_was_folded_before(
    queries: httpx.AsyncClient, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    await record_long_order(recorder, "long")
    changes = (await queries.get("/orders/long/history?after_version=3499&limit=1")).json()["events"]
    read: list[int] = []
    read_stream_page = event_log.read_stream_page

    async def counted(*arguments: Any) -> Any:
        events = await read_stream_page(*arguments)
        read.append(len(events))
        return events

    monkeypatch.setattr(event_log, "read_stream_page", counted)

    async def events_read(known_at: str) -> int:
        read.clear()
        answer = await queries.get("/orders/long", params={"known_at": known_at})
        assert answer.json()["version"] >= 3_500
        return sum(read)

    then, now = changes[0]["recorded_at"], datetime.now(UTC).isoformat()
    assert await events_read(now) == LONG + 1
    assert await events_read(now) <= past_states.EVERY_EVENTS + 1
    assert await events_read(then) <= 2 * 500
    first = (await queries.get("/orders/long", params={"known_at": then})).json()
    assert first == (await queries.get("/orders/long", params={"known_at": then})).json()


@pytest.mark.promise("queries", "A past state is folded from the nearest one that was folded before")
async def test_a_state_of_a_past_that_the_log_no_longer_has_is_not_used(
    queries: httpx.AsyncClient, recorder: Recorder
) -> None:
    await record_long_order(recorder, "long")
    now = datetime.now(UTC).isoformat()
    before = (await queries.get("/orders/long", params={"known_at": now})).json()
    connection = recorder.connection
    await connection.execute("alter table events disable trigger user")
    await connection.execute(
        'update events set hash = sha256(hash), data = \'{"shipping_address_id": "restored"}\' where version > 1'
    )
    after = (await queries.get("/orders/long", params={"known_at": now})).json()
    assert (before["shipping_address_id"], after["shipping_address_id"]) == ("elsewhere", "restored")


@pytest.mark.promise("live-updates", "Following a customer from far back reads that customer's events alone")
async def test_following_customers_from_far_back_costs_their_events_alone(
    queries: httpx.AsyncClient, recorder: Recorder
) -> None:
    at = datetime.now(UTC)
    for begin in range(0, ORDERS, 500):
        await recorder.record_each([f"o-{nr}" for nr in range(begin, begin + 500)], placed(customer_id="others"), at)
    last = await recorder.record("42", placed(customer_id="alice"))
    async with (
        client_at("127.0.0.2", queries) as attacker,
        client_at("127.0.0.3", queries) as other,
        AsyncExitStack() as stack,
    ):
        for number in range(FOLLOWERS):
            path = f"/customers/nobody-{number}/orders/events?after=0"
            await stack.enter_async_context(following(attacker, path))
        started = monotonic()
        async with following(other, "/customers/alice/orders/events?after=0") as source:
            await source.until(1)
        assert monotonic() - started < 2.0
        assert source.positions == [last]


@pytest.mark.promise("queries", "Reads of several whole orders are bounded, and clients are served in turn")
@pytest.mark.bound("query", "answers of several whole orders made at once")
async def test_reads_of_several_large_orders_do_not_hold_up_others(
    queries: httpx.AsyncClient, recorder: Recorder, redis: Redis
) -> None:
    await recorder.record("1", placed())
    head = await event_log.read_head(recorder.connection)
    documents = {str(number): '"' + "x" * 100_000 + '"' for number in range(10)}
    await write(redis, PartitionKeys("orders"), head.position, documents, head.log_id)
    path = f"/orders?ids={','.join(documents)}"
    async with client_at("127.0.0.2", queries) as attacker, client_at("127.0.0.3", queries) as other:
        began = monotonic()
        attack = [asyncio.create_task(attacker.get(path)) for _ in range(150)]
        await asyncio.wait(attack, return_when=asyncio.FIRST_COMPLETED)  # connected: that costs the others too
        waits = []
        for _ in range(3):
            started = monotonic()
            assert len((await other.get(path)).json()["orders"]) == 10
            waits.append(monotonic() - started)
        answers = await asyncio.gather(*attack)
        seconds = monotonic() - began
    assert max(waits) < seconds / 2, "one that waits behind all of them would wait for nearly as long as they take"
    codes = {200 if answer.is_success else answer.json()["code"] for answer in answers}
    assert codes == {200, "too-many-costly-reads"}
