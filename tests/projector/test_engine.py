"""The engine on a real log and a real Redis, batch by batch: each applied exactly once, by any projector."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from projector.engine import Engine
from projector.folding import Changes
from projector.projections.orders import ORDERS
from projector.routing import PoisonEvent
from projector.stores.redis import RedisStore
from projector.stores.store import ApplyResult, Batch, Fenced
from shared.aggregates.order import OrderDocument, OrderItemAdded
from shared.eventstore.lease import try_acquire
from shared.eventstore.log import read_head
from shared.eventstore.subscription import open_session
from shared.read_models.keys import Checkpoint, PartitionKeys
from shared.settings import Settings
from tests.independent_folds import assert_read_models_equal_the_log
from tests.orders import MUG, new_order_id, paid, placed
from tests.recording import Recorder
from tests.running import eventually

KEYS = PartitionKeys("orders")

NewEngine = Callable[..., Awaitable[Engine[OrderDocument]]]


@pytest.fixture
def store(redis: Redis) -> RedisStore:
    return RedisStore(redis, KEYS)


@pytest.fixture
async def new_engine(projector_settings: Settings, store: RedisStore) -> AsyncIterator[NewEngine]:
    """Makes an engine with a lease of its own; the ones before it do not know that theirs is over."""
    connections = []

    async def new(batch_size: int = 1_000, lease_name: str = "") -> Engine[OrderDocument]:
        context = open_session(projector_settings, lambda: None)
        connections.append(context)
        held = await try_acquire(await context.__aenter__(), lease_name or str(uuid4()))
        assert held is not None
        return Engine(ORDERS, store, held, batch_size)

    yield new
    for context in connections:
        await context.__aexit__(None, None, None)


async def run_to_head(engine: Engine[OrderDocument]) -> None:
    while await engine.step():
        pass


async def everything_in(redis: Redis) -> dict[bytes, Any]:
    """Every key but the epoch and the heartbeat, which name the writer and not the content."""
    contents: dict[bytes, Any] = {}
    async for key in redis.scan_iter():
        if await redis.type(key) == b"hash":
            contents[key] = await redis.hgetall(key)
        else:
            contents[key] = await redis.zrange(key, 0, -1)
    contents.get(KEYS.meta.encode(), {}).pop(b"epoch", None)
    return contents


async def some_orders(recorder: Recorder, count: int = 10) -> None:
    for _ in range(count):
        order_id = new_order_id()
        await recorder.record(order_id, placed())
        await recorder.record(order_id, OrderItemAdded(MUG), paid(4_399))


async def assert_equal_to_the_log(settings: Settings) -> None:
    await assert_read_models_equal_the_log(
        settings.database_url.get_secret_value(), settings.redis_url.get_secret_value(), read_models=["orders"]
    )


@pytest.mark.promise("read-models", "A read model equals the fold of the log, for any split into batches")
@pytest.mark.parametrize("batch_size", [1, 7, 1_000])
async def test_the_read_models_are_the_fold_of_the_log(
    batch_size: int, new_engine: NewEngine, recorder: Recorder, settings: Settings
) -> None:
    await some_orders(recorder)

    await run_to_head(await new_engine(batch_size))

    await assert_equal_to_the_log(settings)


async def test_an_empty_log_makes_an_empty_read_model_that_can_be_served(
    new_engine: NewEngine, store: RedisStore, recorder: Recorder
) -> None:
    await run_to_head(await new_engine())

    head = await read_head(recorder.connection)
    assert await store.checkpoint() == Checkpoint(head.log_id, position=0, ready_at=0, generation=1)


async def test_a_restart_continues_exactly_where_the_checkpoint_is(
    new_engine: NewEngine, store: RedisStore, recorder: Recorder, settings: Settings
) -> None:
    await some_orders(recorder)
    first = await new_engine(batch_size=7)
    await first.step()

    second = await new_engine(batch_size=7)
    await second.step()

    checkpoint = await store.checkpoint()
    assert checkpoint is not None
    assert checkpoint.position == 14
    await run_to_head(second)
    await assert_equal_to_the_log(settings)


async def test_a_batch_that_comes_twice_changes_nothing(new_engine: NewEngine, store: RedisStore, redis: Redis) -> None:
    await run_to_head(await new_engine())
    start = await store.checkpoint()
    assert start is not None
    batch = Batch(
        start, 1, bytes(32), Changes({"1": {"document": "{}", "version": "1"}}, {}, {"all": ["0" * 15 + "1"]})
    )
    assert await store.apply(batch, epoch=1_000) is ApplyResult.APPLIED
    before = await everything_in(redis)

    assert await store.apply(batch, epoch=1_000) is ApplyResult.MISMATCH

    assert await everything_in(redis) == before


async def test_a_projector_that_was_overtaken_changes_nothing(
    new_engine: NewEngine, store: RedisStore, redis: Redis, recorder: Recorder
) -> None:
    old = await new_engine()
    await run_to_head(old)
    await some_orders(recorder)
    await store.claim(epoch=1_000)  # the new one has not applied anything yet: only the fence tells
    before = await everything_in(redis)

    with pytest.raises(Fenced):
        await old.step()

    assert await everything_in(redis) == before


@pytest.mark.promise("read-models", "Two projectors side by side apply every event once")
async def test_two_engines_side_by_side_apply_every_event_once(
    new_engine: NewEngine, recorder: Recorder, settings: Settings
) -> None:
    await some_orders(recorder, 30)
    engines = [await new_engine(batch_size=3) for _ in range(3)]

    async def run(engine: Engine[OrderDocument]) -> None:
        try:
            await run_to_head(engine)
        except Fenced:
            return

    await asyncio.gather(*map(run, engines))

    await assert_equal_to_the_log(settings)


async def test_an_emptied_redis_is_built_again_even_when_nothing_happens(
    new_engine: NewEngine, redis: Redis, recorder: Recorder, settings: Settings
) -> None:
    await some_orders(recorder)
    engine = await new_engine()
    await run_to_head(engine)

    await redis.flushall()
    await run_to_head(engine)

    await assert_equal_to_the_log(settings)


async def test_redis_emptied_between_reading_and_writing_is_no_poison(
    new_engine: NewEngine, redis: Redis, recorder: Recorder, settings: Settings
) -> None:
    order_id = new_order_id()
    await recorder.record(order_id, placed())
    engine = await new_engine()
    await run_to_head(engine)
    await recorder.record(order_id, paid())

    await redis.flushall()
    await run_to_head(engine)

    await assert_equal_to_the_log(settings)


async def test_an_older_copy_of_redis_continues_from_its_own_checkpoint(
    new_engine: NewEngine, redis: Redis, recorder: Recorder, settings: Settings
) -> None:
    await some_orders(recorder)
    engine = await new_engine()
    await run_to_head(engine)
    copy = {key: await redis.dump(key) async for key in redis.scan_iter()}
    await some_orders(recorder)
    await run_to_head(engine)

    await redis.flushall()
    for key, value in copy.items():
        assert value is not None
        await redis.restore(key, 0, value)
    await run_to_head(engine)

    await assert_equal_to_the_log(settings)


async def test_what_another_log_left_behind_is_removed(
    new_engine: NewEngine, store: RedisStore, recorder: Recorder, settings: Settings
) -> None:
    # A higher epoch than this log's sequence ever gave: epochs of different logs cannot be compared.
    await store.claim(epoch=500)
    foreign = await store.reset(500, uuid4(), ready_at=3)
    changes = Changes(
        {f"old-{n}": {"document": "{}", "version": "1"} for n in range(1_200)}, {}, {"customer:old": ["0" * 15 + "1"]}
    )
    assert await store.apply(Batch(foreign, 3, bytes(32), changes), 500) is ApplyResult.APPLIED
    await some_orders(recorder)

    await run_to_head(await new_engine())

    await assert_equal_to_the_log(settings)


async def test_what_is_not_ours_in_redis_is_left_alone(new_engine: NewEngine, redis: Redis) -> None:
    await redis.set("another-application", "precious")
    await redis.set("{orders.1}:doc:1", "another partition")

    await run_to_head(await new_engine())

    assert await redis.mget("another-application", "{orders.1}:doc:1") == [b"precious", b"another partition"]


@pytest.mark.parametrize("position", [10_000, 15])
async def test_a_log_restored_to_an_older_state_builds_the_read_model_again(
    position: int, new_engine: NewEngine, store: RedisStore, recorder: Recorder, settings: Settings
) -> None:
    """Ahead of the log, or at a place where the log has another past: seen from the hash at the checkpoint."""
    await some_orders(recorder)
    head = await read_head(recorder.connection)
    await store.claim(epoch=1)
    start = await store.reset(1, head.log_id, ready_at=0)
    lost_future = Changes({"lost": {"document": "{}", "version": "1"}}, {}, {"all": ["0" * 15 + "lost"]})
    await store.apply(Batch(start, position, b"x" * 32, lost_future), 1)

    await run_to_head(await new_engine())

    await assert_equal_to_the_log(settings)


async def test_while_it_catches_up_a_new_read_model_is_not_served(
    new_engine: NewEngine, store: RedisStore, recorder: Recorder
) -> None:
    await some_orders(recorder)
    engine = await new_engine(batch_size=10)

    seen = []
    more = True
    while more:
        more = await engine.step()
        checkpoint = await store.checkpoint()
        assert checkpoint is not None
        seen.append((checkpoint.position, checkpoint.rebuilding))

    assert seen == [(10, True), (20, True), (30, False), (30, False)]


async def test_the_projection_stops_right_before_an_event_it_cannot_read(
    new_engine: NewEngine, store: RedisStore, recorder: Recorder
) -> None:
    await recorder.record(new_order_id(), placed())
    poison = await recorder.record_raw(new_order_id(), "OrderTeleported", 1, "{}")
    await recorder.record(new_order_id(), placed())
    engine = await new_engine()

    for _ in range(3):
        with pytest.raises(PoisonEvent) as stopped:
            await engine.step()
        assert stopped.value.event.position == poison

    checkpoint = await store.checkpoint()
    assert checkpoint is not None
    assert checkpoint.position == poison - 1


async def test_a_batch_with_more_entries_than_a_script_can_unpack_is_applied(
    new_engine: NewEngine, recorder: Recorder, settings: Settings
) -> None:
    order_ids = [f"bulk-{number}" for number in range(5_000)]
    await recorder.record_each(order_ids, placed(MUG), datetime(2011, 1, 1, tzinfo=UTC))

    await run_to_head(await new_engine(batch_size=10_000))

    await assert_equal_to_the_log(settings)


async def test_a_redis_that_forgot_the_scripts_is_taught_them_again(
    new_engine: NewEngine, redis: Redis, recorder: Recorder, settings: Settings
) -> None:
    engine = await new_engine()
    await run_to_head(engine)
    await some_orders(recorder)

    await redis.script_flush()
    await run_to_head(engine)

    await assert_equal_to_the_log(settings)


async def test_the_lease_is_one_projectors_at_a_time(new_engine: NewEngine, projector_settings: Settings) -> None:
    await new_engine(lease_name="the lease")

    async with open_session(projector_settings, lambda: None) as session:
        assert await try_acquire(session, "the lease") is None
        assert await try_acquire(session, "another lease") is not None


async def test_later_leases_have_higher_epochs(projector_settings: Settings) -> None:
    epochs = []
    for _ in range(3):
        async with open_session(projector_settings, lambda: None) as session:
            held = await try_acquire(session, str(uuid4()))
            assert held is not None
            epochs.append(held.epoch)
            await held.raise_epoch(above=held.epoch + 10)
            epochs.append(held.epoch)
            await held.raise_epoch(above=3)
            epochs.append(held.epoch)

    assert epochs == sorted(set(epochs))


async def test_a_holder_that_does_nothing_loses_the_lease(projector_settings: Settings) -> None:
    """As one that is paused: its kernel keeps the connection alive, so the server has to end it. One that is paused
    within a statement: `tests/faults/test_projector_paused.py`."""
    async with open_session(projector_settings, lambda: None, idle_seconds=0.2) as paused:
        assert await try_acquire(paused, "the lease")
        async with open_session(projector_settings, lambda: None) as other:

            async def taken_over() -> bool:
                return await try_acquire(other, "the lease") is not None

            await eventually(taken_over)
        await eventually(lambda: paused.lost)
