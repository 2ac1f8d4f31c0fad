"""Comparing read models with the log finds every difference, and none where there is none."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import pytest
from redis.asyncio import Redis

from projector.projection import RecordedEvent
from projector.projections.orders import ORDERS
from projector.projections.revenue_by_day import REVENUE, REVENUE_BY_DAY
from projector.refold import open_refold
from projector.stores.inspection import IndexMember, Inspected
from projector.stores.postgres_generations import PostgresGenerationStore
from projector.stores.redis_generations import RedisGenerationStore
from projector.stores.redis_inspection import RedisInspection
from projector.verification import PAGE, CheckpointMovedBack, Comparison, compare
from shared.aggregates.order import OrderDocument
from shared.read_models.keys import PartitionKeys, sort_key
from shared.settings import Settings
from tests.independent_folds import assert_read_models_equal_the_log
from tests.orders import paid, placed, shipped
from tests.projector.histories import stored
from tests.recording import Recorder
from tests.running import running_projector


@pytest.fixture
async def projecting(settings: Settings) -> AsyncIterator[None]:
    """A running projector, and nothing else."""
    async with running_projector(settings):
        yield


TAMPERING: dict[str, Callable[[Redis], Awaitable[Any]]] = {
    "another document": lambda redis: redis.hset("{orders.0}:doc:42", "document", json.dumps({"order_id": "42"})),
    "another version": lambda redis: redis.hset("{orders.0}:doc:42", "version", "7"),
    "no document": lambda redis: redis.delete("{orders.0}:doc:42"),
    "a document too many": lambda redis: redis.hset("{orders.0}:doc:43", "version", "1"),
    "not in a list": lambda redis: redis.zpopmin("{orders.0}:customer:alice"),
    "in the list of another status": lambda redis: redis.zunionstore("{orders.0}:status:SHIPPED", ["{orders.0}:all"]),
    "in the list of another customer": lambda redis: redis.zunionstore("{orders.0}:customer:bob", ["{orders.0}:all"]),
    "at another place": lambda redis: redis.zadd("{orders.0}:all", {"0" * 15 + "42": 0}),
}


async def compared(recorder: Recorder, redis: Redis) -> Comparison:
    return await compare(recorder.connection, ORDERS, [RedisGenerationStore(redis, "orders", code=1).inspection(1)])


async def revenue_compared(recorder: Recorder, pool: asyncpg.Pool[asyncpg.Record]) -> Comparison:
    generation_store = PostgresGenerationStore(pool, "revenue_by_day", (REVENUE,), code=1)
    return await compare(recorder.connection, REVENUE_BY_DAY, [generation_store.inspection(1)])


async def assert_equal_to_the_log(settings: Settings) -> None:
    await assert_read_models_equal_the_log(
        settings.database_url.get_secret_value(), settings.redis_url.get_secret_value()
    )


@pytest.mark.promise("rebuilds", "Verification finds every difference from the log")
@pytest.mark.usefixtures("projecting")
@pytest.mark.parametrize("tampering", TAMPERING)
async def test_whatever_differs_in_redis_is_found(
    tampering: str, recorder: Recorder, redis: Redis, settings: Settings
) -> None:
    await recorder.record("42", placed(), paid())
    await assert_equal_to_the_log(settings)
    assert str(await compared(recorder, redis)) == "1 documents compared, 0 differences"

    await TAMPERING[tampering](redis)

    assert re.search("42|43", str(await compared(recorder, redis)))


@pytest.mark.promise("rebuilds", "Verification finds every difference from the log")
@pytest.mark.usefixtures("projecting")
@pytest.mark.parametrize(
    "tampering",
    [
        "update revenue_by_day set placed = placed + 1",
        "delete from revenue_by_day",
        "insert into revenue_by_day select 1, day, currency, 'SHIPPED', 1, 1, 1, 0 from revenue_by_day",
        "update read_model_documents set document = '{}'",
        "delete from read_model_documents",
        "insert into read_model_documents select projection, 1, 'x', document from read_model_documents",
    ],
)
async def test_whatever_differs_in_postgresql_is_found(
    tampering: str, recorder: Recorder, pool: asyncpg.Pool[asyncpg.Record], settings: Settings
) -> None:
    await recorder.record("42", placed(), paid())
    await assert_equal_to_the_log(settings)
    assert str(await revenue_compared(recorder, pool)) == "1 documents compared, 0 differences"

    await recorder.connection.execute(tampering)

    assert "the log" in str(await revenue_compared(recorder, pool))


@pytest.mark.promise("rebuilds", "Verification runs while the read model moves")
@pytest.mark.usefixtures("projecting")
async def test_what_moves_meanwhile_is_no_difference(recorder: Recorder, redis: Redis, settings: Settings) -> None:
    """Orders are placed and moved on between any two steps of the comparison."""
    number = itertools.count()

    class MovingInspection(RedisInspection):
        async def read(self, document_ids: Sequence[str], members: Sequence[IndexMember]) -> Inspected:
            await recorder.record(f"new-{next(number)}", placed())
            if moves:
                await recorder.record(moves.pop(), paid())
            await assert_equal_to_the_log(settings)
            return await super().read(document_ids, members)

    for order_id in ("a", "b", "c"):
        await recorder.record(order_id, placed())
    moves = ["a", "b"]

    comparison = await compare(recorder.connection, ORDERS, [MovingInspection(redis, PartitionKeys("orders"))])

    assert str(comparison) == f"{comparison.compared} documents compared, 0 differences"
    assert comparison.compared >= 3


@pytest.mark.usefixtures("projecting")
async def test_more_documents_than_a_page_are_compared_in_each_partition(
    recorder: Recorder, redis: Redis, settings: Settings
) -> None:
    order_ids = [f"o-{number}" for number in range(2 * PAGE)]
    await recorder.record_each(order_ids, placed(), datetime.now(UTC))
    await assert_equal_to_the_log(settings)
    reported: list[tuple[str, int, int]] = []

    def report(what: str, done: int, total: int) -> None:
        reported.append((what, done, total))

    inspection = RedisGenerationStore(redis, "orders", code=1).inspection(1)
    assert (await compare(recorder.connection, ORDERS, [inspection], report)).compared == 2 * PAGE
    assert ("folding", 2 * PAGE, 2 * PAGE) in reported
    assert reported[-2:] == [("comparing", 2 * PAGE, 2 * PAGE), ("finding others", 1, 1)]

    comparison = await compare(recorder.connection, ORDERS, [inspection, inspection])
    assert comparison.differences == 2 * PAGE + 4 * 2 * PAGE, "each document and its entries are in one of them"


async def test_a_read_model_that_is_emptied_meanwhile_is_not_compared_on(
    recorder: Recorder, redis: Redis, settings: Settings
) -> None:
    class EmptiedInspection(RedisInspection):
        async def document_ids(self, page: int) -> AsyncIterator[list[str]]:
            await redis.flushall()
            yield ["43"][:page]

    async with running_projector(settings):
        await recorder.record("42", placed())
        await assert_equal_to_the_log(settings)
    with pytest.raises(CheckpointMovedBack):
        await compare(recorder.connection, ORDERS, [EmptiedInspection(redis, PartitionKeys("orders"))])


def test_a_document_is_folded_as_far_as_it_goes_and_its_entries_with_it() -> None:
    def apply(order_id: str, document: OrderDocument | None, recorded: RecordedEvent[Any]) -> OrderDocument:
        if recorded.position in (2, 3):
            raise ValueError("indigestible")
        return ORDERS.apply(order_id, document, recorded)

    log = [
        stored(placed(), "a", 1, 1),
        stored(paid(), "a", 2, 2),
        stored(placed(), "b", 1, 3),
        stored(shipped(), "a", 3, 4),
    ]
    with open_refold(replace(ORDERS, apply=apply)) as refold:
        assert refold.apply(log) == {"a", "b"}

        document = refold.document("a")
        assert document is not None
        assert document.version == 1
        assert refold.document("b") is None
        assert [*refold.pages(1, 2**20)] == [*refold.pages(2, 1)] == [["a"], ["b"]]
        assert [*refold.pages(2, 2**20)] == [["a", "b"]]
        assert refold.has_entry("status:PENDING", sort_key(document.placed_at, "a"))
        assert not refold.has_entry("status:CONFIRMED", sort_key(document.placed_at, "a"))
        assert refold.position == 4
