"""Queries of read models that are divided: lists are merged, one order is its partition's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from random import Random
from typing import Any

import httpx
import pytest
from redis.asyncio import Redis

from cli.projection_admin.status import show_status
from query_service.coalescing_reader import CoalescingReader
from shared.eventstore.log import read_head
from shared.read_models.keys import PartitionKeys, partition_of
from shared.settings import Settings
from tests.independent_folds import assert_read_models_equal_the_log
from tests.orders import paid, placed
from tests.query_service.reads import get, pages
from tests.query_service.redis_read_model import NOON, scripts_run, write
from tests.recording import Recorder
from tests.running import eventually, is_ready, running_projector

PARTITIONS = 4


@pytest.fixture
async def divided(settings: Settings, queries_alone: httpx.AsyncClient) -> AsyncIterator[httpx.AsyncClient]:
    """Queries of read models in four and two partitions."""
    async with running_projector(settings, projector_partitions=f"orders={PARTITIONS},revenue_by_day=2"):
        await eventually(lambda: is_ready(queries_alone))
        yield queries_alone


async def test_pages_of_a_divided_list_hold_every_order_once_newest_first(
    divided: httpx.AsyncClient, recorder: Recorder
) -> None:
    random = Random(1)
    orders = {f"o-{number}": NOON + timedelta(seconds=random.randrange(10)) for number in range(40)}
    for order_id, at in orders.items():
        await recorder.record(order_id, placed(), occurred_at=at)
    expected = [order_id for order_id, _ in sorted(orders.items(), key=lambda one: (one[1], one[0]), reverse=True)]

    for limit in (1, 3, 7, 20, 40, 100):
        found = await pages(divided, "/orders", recorder, limit=limit)
        assert [order_id for page in found for order_id in page] == expected
        assert [len(page) for page in found[:-1]] == [limit] * (len(found) - 1)
        assert found[-1]


async def test_read_models_in_partitions_equal_the_log(
    divided: httpx.AsyncClient, recorder: Recorder, settings: Settings
) -> None:
    for number in range(30):
        await recorder.record(f"o-{number}", placed(), paid(), occurred_at=NOON)

    await assert_read_models_equal_the_log(
        settings.database_url.get_secret_value(), settings.redis_url.get_secret_value()
    )
    assert {partition_of(f"o-{number}", PARTITIONS) for number in range(30)} == {*range(PARTITIONS)}
    report = await get(divided, "/reports/revenue?from=2011-01-01&to=2011-01-31", recorder)
    assert [line["orders"] for line in report.json()["lines"]] == [30]


async def test_each_partition_is_reported(divided: httpx.AsyncClient, recorder: Recorder) -> None:
    head = await recorder.record("42", placed())
    await get(divided, "/orders", recorder)
    await get(divided, "/reports/revenue?from=2011-01-01&to=2011-01-31", recorder)

    orders, revenue, *_ = (await divided.get("/projections")).json()["projections"]

    assert [(one["partition"], one["checkpoint"]) for one in orders["partitions"]] == [
        (number, head) for number in range(PARTITIONS)
    ]
    assert [one["position_lag"] for one in revenue["partitions"]] == [0, 0]
    assert {one["projector_state"] for one in orders["partitions"]} == {"active"}


async def test_operators_see_each_partition(
    divided: httpx.AsyncClient, recorder: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    await recorder.record("42", placed())
    await get(divided, "/orders", recorder)

    await asyncio.to_thread(show_status, str(divided.base_url), None)

    shown = capsys.readouterr().out
    assert all(f"partition {number} " in shown for number in range(PARTITIONS))


@pytest.fixture
async def reader(redis: Redis) -> AsyncIterator[CoalescingReader]:
    """Of two partitions, one at position 9, the other at 5."""
    first = PartitionKeys("orders")
    await redis.hset(first.generations, mapping={"partitions:1": 2})
    for keys, position in zip(first.each(2), (9, 5), strict=True):
        await fill(redis, keys, position)
    reader = CoalescingReader(redis, "orders")
    yield reader
    await reader.close()


async def fill(redis: Redis, keys: PartitionKeys, position: int) -> None:
    name = f"of-{keys.generation}-{keys.partition}"
    await write(redis, keys, position, {name: name})


@pytest.mark.promise("queries", "An answer from several partitions claims no more than the slowest partition shows")
async def test_a_list_shows_as_much_of_the_log_as_the_partition_furthest_behind(reader: CoalescingReader) -> None:
    reading = await reader.page("all", None, 10)

    assert reading.at is not None
    assert (reading.at.checkpoint.position, reading.lagging_partition) == (5, 1)
    assert reading.value.summaries == [b"of-1-1", b"of-1-0"]


async def test_one_order_shows_as_much_as_its_own_partition(reader: CoalescingReader) -> None:
    ids = [next(f"{n}" for n in range(99) if partition_of(f"{n}", 2) == partition) for partition in range(2)]

    readings = await asyncio.gather(*map(reader.document, ids))

    assert [(one.at.checkpoint.position, one.lagging_partition) for one in readings if one.at] == [(9, 0), (5, 1)]


async def test_a_partition_that_is_not_there_leaves_no_list(reader: CoalescingReader, redis: Redis) -> None:
    await redis.delete("{orders.1}:meta")

    assert (await reader.page("all", None, 10)).at is None
    assert (await reader.document("0")).at is not None or partition_of("0", 2) == 1


@pytest.mark.promise("queries", "An answer never mixes generations")
async def test_generations_are_never_mixed(reader: CoalescingReader, redis: Redis) -> None:
    """However they change under the reader, and whatever number of partitions they have."""
    first = PartitionKeys("orders")
    for keys in first.of(2).each(3):
        await fill(redis, keys, 9)
    await redis.hset(first.generations, mapping={"partitions:2": 3})
    done = asyncio.Event()

    async def switch_to_and_fro() -> None:
        for number in range(200):
            fields: dict[Any, Any] = {"live": 2 - number % 2, "switches": number + 1}
            await redis.hset(first.generations, mapping=fields)
        done.set()

    switching = asyncio.create_task(switch_to_and_fro())
    seen = set()
    while not done.is_set():
        seen.add(tuple((await reader.page("all", None, 10)).value.summaries))
    await switching

    assert seen <= {(b"of-1-1", b"of-1-0"), (b"of-2-2", b"of-2-1", b"of-2-0")}


async def test_a_waiting_query_is_woken_by_the_partition_that_was_behind(
    divided: httpx.AsyncClient, recorder: Recorder
) -> None:
    await recorder.record("42", placed())
    await get(divided, "/orders", recorder, Prefer="wait=20")

    await recorder.record("43", placed())
    headers = {"Consistency-Token": (await read_head(recorder.connection)).token.encode(), "Prefer": "wait=20"}
    waiting = [asyncio.create_task(divided.get(path, headers=headers)) for path in ("/orders/42", "/orders")]

    assert [answer.status_code for answer in await asyncio.gather(*waiting)] == [200, 200]


async def test_a_read_is_repeated_when_another_generation_was_live_in_between(
    reader: CoalescingReader, redis: Redis
) -> None:
    """What it read first may be from before the generation that is live again had caught up."""
    await reader.page("all", None, 10)
    before = await scripts_run(redis)

    await redis.hset(PartitionKeys("orders").generations, mapping={"switches": 2})
    await reader.page("all", None, 10)

    assert await scripts_run(redis) - before == 2 * 2
