"""Partitions: each is folded on its own, together they are the read model."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import HealthCheck
from hypothesis import given as for_all
from hypothesis import settings as effort
from hypothesis import strategies as st
from redis.asyncio import Redis

from projector.engine import Engine
from projector.folding import Changes
from projector.projection import Contribution, Projection
from projector.projections.orders import ORDERS
from projector.projections.revenue_by_day import REVENUE, REVENUE_BY_DAY
from projector.stores.generation_store import GenerationStore
from projector.stores.postgres_generations import PostgresGenerationStore
from projector.stores.redis_generations import RedisGenerationStore
from projector.stores.store import ApplyResult, Batch, Store
from shared.eventstore.lease import try_acquire
from shared.eventstore.log import StoredEvent
from shared.eventstore.subscription import LogSession
from shared.read_models.keys import Generations, lease_name
from tests.effort import examples
from tests.independent_folds import assert_read_models_equal_the_log
from tests.projector.fresh_log import FreshLog
from tests.projector.histories import logs
from tests.projector.inspected_stores import NOTHING, InspectedPostgres, InspectedRedis, load_all

LOG = UUID(int=1)


@pytest.fixture
def inspected_stores(
    redis: Redis, pool: asyncpg.Pool[asyncpg.Record], connection: asyncpg.Connection[asyncpg.Record]
) -> tuple[InspectedRedis, InspectedPostgres]:
    return InspectedRedis(redis), InspectedPostgres(pool, connection)


@pytest.mark.promise("read-models", "Partitions folded in any order are together the fold of the log")
@for_all(events=logs(), partitions=st.integers(1, 4), batch_size=st.integers(1, 3), data=st.data())
@effort(max_examples=examples(40), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
async def test_partitions_folded_in_any_order_are_together_the_fold_of_the_log(
    events: list[StoredEvent],
    partitions: int,
    batch_size: int,
    data: st.DataObject,
    fresh_log: FreshLog,
    session: LogSession,
    inspected_stores: tuple[InspectedRedis, InspectedPostgres],
    generation_store: GenerationStore,
    database_url: str,
    redis_url: str,
) -> None:
    await fresh_log.begin()
    for inspected in inspected_stores:
        await inspected.put_back(NOTHING)
    assert (await generation_store.initialise(partitions)).partitions_of(1) == partitions
    projection: Projection[Any] = ORDERS if isinstance(generation_store, RedisGenerationStore) else REVENUE_BY_DAY
    engines: list[Engine[Any]] = []
    for number in range(partitions):
        held = await try_acquire(session, lease_name(projection.name, 1, number))
        assert held is not None
        engines.append(
            Engine(projection.part(number, partitions), generation_store.store(1, number, partitions), held, batch_size)
        )

    for event in events:
        await fresh_log.append(event)
        for number in data.draw(st.lists(st.integers(0, partitions - 1), max_size=3)):
            await engines[number].step()
    for engine in engines:
        while await engine.step():
            pass

    # With no time to catch up: every partition is at the head already, past what belongs to others.
    await assert_read_models_equal_the_log(database_url, redis_url, seconds=0.0, read_models=[projection.name])


async def begin(store: Store, position: int, document_id: str = "a") -> None:
    """At that position, with one document."""
    await store.claim(1)
    start = await store.reset(1, LOG, ready_at=0)
    changes = Changes({document_id: {"document": '{"n":1}', "version": "1"}}, {}, {})
    assert await store.apply(Batch(start, position, bytes(32), changes), epoch=1) is ApplyResult.APPLIED


async def position_of(store: Store) -> int | None:
    checkpoint = await store.checkpoint()
    return None if checkpoint is None else checkpoint.position


async def test_the_first_generation_has_the_number_that_was_set(generation_store: GenerationStore) -> None:
    assert (await generation_store.initialise(4)).partitions_of(1) == 4
    assert (await generation_store.initialise(8)).partitions_of(1) == 4, "the first caller decides"
    assert (await generation_store.generations()).partitions_of(1) == 4


async def test_a_read_model_that_is_there_keeps_its_number(generation_store: GenerationStore) -> None:
    await begin(generation_store.store(1), 3)

    assert await generation_store.initialise(4) == Generations()


async def test_a_generation_has_the_number_it_was_begun_with(generation_store: GenerationStore) -> None:
    assert [await generation_store.begin(4), await generation_store.begin(2)] == [2, 2]

    generations = await generation_store.generations()

    assert [generations.partitions_of(number) for number in (1, 2, 3)] == [1, 4, 1]


async def test_partitions_have_documents_and_checkpoints_of_their_own(generation_store: GenerationStore) -> None:
    for partition, position in ((0, 3), (1, 5)):
        await begin(generation_store.store(await generation_store.begin(2), partition, 2), position, f"of-{partition}")

    for partition, position in ((0, 3), (1, 5)):
        store = generation_store.store(2, partition, 2)
        checkpoint = await store.checkpoint()
        assert checkpoint is not None
        assert checkpoint.position == position
        assert (await load_all(store, checkpoint, ["of-0", "of-1"])).keys() == {f"of-{partition}"}


async def test_nothing_is_switched_to_while_any_partition_shows_less(generation_store: GenerationStore) -> None:
    await begin(generation_store.store(1), 5)
    await generation_store.begin(2)
    await begin(generation_store.store(2, 0, 2), 5)
    assert not await generation_store.switch(1, 2), "a partition is not there"
    await begin(generation_store.store(2, 1, 2), 4)
    assert not await generation_store.switch(1, 2), "a partition is behind"
    assert (await generation_store.generations()).live == 1

    store = generation_store.store(2, 1, 2)
    checkpoint = await store.checkpoint()
    assert checkpoint is not None
    await store.apply(Batch(checkpoint, 5, bytes(32), Changes({}, {}, {})), epoch=1)

    assert await generation_store.switch(1, 2)
    assert await generation_store.switch(2, 1), "and back"


async def test_a_live_generation_that_never_stands_still_is_followed_to_where_it_was_seen(
    generation_store: GenerationStore,
) -> None:
    await begin(generation_store.store(1), 5)
    await generation_store.begin(2)
    for partition in range(2):
        await begin(generation_store.store(2, partition, 2), 5)
    seen = await generation_store.checkpoints(1)
    live = generation_store.store(1)
    checkpoint = await live.checkpoint()
    assert checkpoint is not None
    await live.apply(Batch(checkpoint, 6, bytes(32), Changes({}, {}, {})), epoch=1)

    assert not await generation_store.switch(1, 2)
    assert await generation_store.switch(1, 2, seen) == bool(seen), (
        "where the check and the switch are one step, it has to be no older"
    )


async def test_what_is_dropped_is_gone_in_every_partition(generation_store: GenerationStore) -> None:
    await begin(generation_store.store(1), 3)
    await generation_store.begin(3)
    for partition in range(3):
        await begin(generation_store.store(2, partition, 3), 3)

    assert await generation_store.drop(2)

    assert [await position_of(generation_store.store(2, partition, 3)) for partition in range(3)] == [None] * 3
    assert await generation_store.generations() == Generations()
    assert await position_of(generation_store.store(1)) == 3


async def test_what_was_one_of_another_number_of_partitions_is_begun_anew(redis_url: str) -> None:
    """Left over on a node of a Cluster, when the node that knew the number was emptied."""
    async with Redis.from_url(redis_url) as redis:
        generation_store = RedisGenerationStore(redis, "orders", code=1)
        await begin(generation_store.store(1, 1, 2), 3)

        assert await generation_store.store(1, 1, 4).claim(2) is None


async def test_partitions_add_to_the_same_sums_and_begin_anew_together(pool: asyncpg.Pool[asyncpg.Record]) -> None:
    generation_store = PostgresGenerationStore(pool, "revenue_by_day", (REVENUE,), code=1)
    await generation_store.initialise(2)
    line = ("2011-01-04", "GBP", "PENDING")
    stores = [generation_store.store(1, partition, 2) for partition in range(2)]

    async def add_one(store: Store) -> ApplyResult:
        checkpoint = await store.checkpoint()
        assert checkpoint is not None
        changes = Changes({}, {}, {"revenue_by_day": [Contribution(line, (1, 10, 0, 0))]})
        return await store.apply(Batch(checkpoint, checkpoint.position + 1, bytes(32), changes), epoch=1)

    for store in stores:
        await store.claim(1)
    starts = [await store.reset(1, LOG, ready_at=0) for store in stores]
    assert starts[0] == starts[1]
    for store in stores:
        assert await add_one(store) is ApplyResult.APPLIED
    assert await pool.fetchval("select orders from revenue_by_day") == 2

    await stores[1].reset(1, UUID(int=2), ready_at=0)

    assert await pool.fetchval("select count(*) from revenue_by_day") == 0
    claimed = [await store.claim(1) for store in stores]
    assert [one and (one.checkpoint.log_id, one.checkpoint.position) for one in claimed] == [(UUID(int=2), 0)] * 2
