"""The projector process from outside: what it does to Redis, what it says of itself, how it lives through failures."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable

import asyncpg
import httpx
import pytest
import structlog
from redis.asyncio import Redis

from cli.stack.embedded_valkey import EmbeddedValkey
from projector.projections import PROJECTIONS
from shared.eventstore.feed import EVENT_LOG
from shared.read_models.keys import PartitionKeys, partition_of
from shared.settings import Settings
from tests.independent_folds import assert_read_models_equal_the_log
from tests.orders import new_order_id, paid, placed
from tests.recording import Recorder, lose_every_notification
from tests.running import eventually, is_ready, running_projector


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url, decode_responses=True) as client:
        yield client


def position_is(redis: Redis, position: int) -> Callable[[], Awaitable[bool]]:
    async def reached() -> bool:
        return await redis.hget("{orders.0}:meta", "position") == str(position)

    return reached


async def metric(projector: httpx.AsyncClient, name: str, projection: str = "orders") -> float:
    text = (await projector.get("/metrics")).text
    labels = rf'(partition="0",)?projection="{projection}"'
    match = re.search(rf"^{name}(?:{{{labels}}})? (?P<value>\S+)$", text, re.MULTILINE)
    assert match is not None, f"no metric {name}"
    return float(match["value"])


async def assert_equal_to_the_log(settings: Settings) -> None:
    await assert_read_models_equal_the_log(
        settings.database_url.get_secret_value(), settings.redis_url.get_secret_value()
    )


async def test_it_follows_the_log(projector_settings: Settings, recorder: Recorder, settings: Settings) -> None:
    await recorder.record(new_order_id(), placed(), paid())
    async with running_projector(projector_settings) as projector:
        await eventually(lambda: is_ready(projector))
        await recorder.record(new_order_id(), placed(), paid())
        await assert_equal_to_the_log(settings)


async def test_polling_suffices_when_every_notification_is_lost(
    projector_settings: Settings, recorder: Recorder, redis: Redis
) -> None:
    async with running_projector(projector_settings) as projector:
        await eventually(lambda: is_ready(projector))
        await lose_every_notification(recorder.connection)
        await eventually(position_is(redis, await recorder.record(new_order_id(), placed())))


async def test_notifications_are_enough_to_be_quick(
    projector_settings: Settings, recorder: Recorder, redis: Redis
) -> None:
    slow_polling = projector_settings.model_copy(update={"projector_poll_seconds": 8.0})
    async with running_projector(slow_polling) as projector:
        await eventually(lambda: is_ready(projector))
        await eventually(position_is(redis, await recorder.record(new_order_id(), placed())), seconds=2)


async def test_one_is_active_and_another_stands_by_until_it_is_needed(
    projector_settings: Settings, recorder: Recorder, settings: Settings, redis: Redis
) -> None:
    async with running_projector(projector_settings) as second:
        async with running_projector(projector_settings) as first:
            await eventually(lambda: is_ready(first))
            await eventually(lambda: is_ready(second))
            await eventually(position_is(redis, await recorder.record(new_order_id(), placed())))
        await eventually(position_is(redis, await recorder.record(new_order_id(), placed())))
        await assert_equal_to_the_log(settings)


@pytest.mark.promise("poison", "An event that cannot be applied stops its projection visibly; nothing is skipped")
async def test_a_poison_event_stops_it_visibly_and_nothing_is_skipped(
    projector_settings: Settings, recorder: Recorder, redis: Redis
) -> None:
    async with running_projector(projector_settings) as projector:
        await eventually(lambda: is_ready(projector))
        last_good = await recorder.record(new_order_id(), placed())
        await recorder.record_raw(new_order_id(), "OrderTeleported", 1, "{}")
        await recorder.record(new_order_id(), placed())

        await eventually(position_is(redis, last_good))

        async def stuck() -> bool:
            return (await projector.get("/readyz")).status_code == 503

        await eventually(stuck)
        assert "OrderTeleported" in (await projector.get("/readyz")).json()["detail"]
        for projection in ("orders", "revenue_by_day"):  # in Redis, in PostgreSQL
            await _lag_grows(projector, projection)
        await _heart_beats(redis)
        assert await redis.hget("{orders.0}:heartbeat", "state") == "stuck"
        assert await position_is(redis, last_good)()


@pytest.mark.promise("poison", "A stuck partition delays no other partition and costs none its lease")
async def test_a_stuck_partition_holds_up_no_other_and_costs_none_its_lease(
    projector_settings: Settings, recorder: Recorder, redis: Redis
) -> None:
    divided = projector_settings.model_copy(update={"projector_partitions": "orders=4"})
    async with running_projector(divided) as projector:
        await eventually(lambda: is_ready(projector))
        head = await recorder.record("42", placed())
        metas = [keys.meta for keys in PartitionKeys("orders").each(4)]
        sick = partition_of("42", 4)

        async def positions(field: str = "position") -> list[str]:
            return [str(await redis.hget(meta, field)) for meta in metas]

        await eventually(lambda: _equals(positions, [str(head)] * 4))
        epochs = await positions("epoch")
        await recorder.record_raw("42", "OrderTeleported", 1, "{}")
        later = [await recorder.record(new_order_id(), placed()) for _ in range(20)][-1]

        expected = [str(later)] * 4
        expected[sick] = str(head)
        await eventually(lambda: _equals(positions, expected))
        after = await positions("epoch")
        assert [now for nr, now in enumerate(after) if nr != sick] == [
            then for nr, then in enumerate(epochs) if nr != sick
        ]
        assert "OrderTeleported" in (await projector.get("/readyz")).json()["detail"]


async def _lag_grows(projector: httpx.AsyncClient, projection: str) -> None:
    async def two_events_behind() -> bool:
        return await metric(projector, "orders_projection_lag_events", projection) == 2

    await eventually(two_events_behind)
    before = await metric(projector, "orders_projection_lag_seconds", projection)

    async def later() -> bool:
        return await metric(projector, "orders_projection_lag_seconds", projection) > before

    await eventually(later)


async def _heart_beats(redis: Redis) -> None:
    before = await redis.hget("{orders.0}:heartbeat", "at")

    async def again() -> bool:
        return await redis.hget("{orders.0}:heartbeat", "at") != before

    await eventually(again)


async def test_lag_is_zero_once_it_has_caught_up(
    projector_settings: Settings, recorder: Recorder, redis: Redis
) -> None:
    async with running_projector(projector_settings) as projector:
        head = await recorder.record(new_order_id(), placed(), paid())
        await eventually(position_is(redis, head))

        async def caught_up() -> bool:
            return await metric(projector, "orders_projection_checkpoint_position") == head

        await eventually(caught_up)
        assert await metric(projector, "orders_log_head_position") == head
        assert await metric(projector, "orders_projection_lag_events") == 0
        assert await metric(projector, "orders_projection_lag_seconds") == 0


async def test_of_partitions_that_are_there_no_more_nothing_is_told(
    projector_settings: Settings, recorder: Recorder, redis: Redis
) -> None:
    """Else alerts on the lag they had last would never end."""
    divided = projector_settings.model_copy(update={"projector_partitions": "orders=3"})
    async with running_projector(divided) as projector:

        async def told() -> set[tuple[str, str]]:
            text = (await projector.get("/metrics")).text
            lines = re.findall(r'^orders_projection_(\w+){partition="(\d)",projection="orders"} ', text, re.MULTILINE)
            return {(name, partition) for name, partition in lines}

        gauges = ("checkpoint_position", "lag_events", "lag_seconds", "parked_streams")
        await recorder.record(new_order_id(), placed())
        await eventually(lambda: _equals(told, {(gauge, nr) for gauge in gauges for nr in "012"}))
        await redis.hset("{orders.0}.generations", mapping={"live": 2, "previous": 1})
        await eventually(lambda: _equals(told, {(gauge, "0") for gauge in gauges}))


async def test_a_lag_that_cannot_be_measured_is_not_told(projector_settings: Settings, recorder: Recorder) -> None:
    async with running_projector(projector_settings) as projector:

        async def told() -> bool:
            return (
                'orders_projection_lag_seconds{partition="0",projection="orders"}'
                in (await projector.get("/metrics")).text
            )

        async def untold() -> bool:
            return not await told()

        await eventually(told)
        await recorder.connection.execute("alter table events rename to not_there")
        await eventually(untold)
        await recorder.connection.execute("alter table not_there rename to events")
        await eventually(told)


async def test_it_lives_through_the_loss_of_its_database_sessions(
    projector_settings: Settings, recorder: Recorder, settings: Settings
) -> None:
    async with running_projector(projector_settings) as projector:
        await eventually(lambda: is_ready(projector))
        await recorder.connection.execute(
            "select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'orders-projector%'"
        )
        await recorder.record(new_order_id(), placed())
        await assert_equal_to_the_log(settings)
        await eventually(lambda: is_ready(projector))


async def test_it_lives_through_a_restart_of_redis(
    projector_settings: Settings, recorder: Recorder, settings: Settings, valkey: EmbeddedValkey
) -> None:
    async with running_projector(projector_settings) as projector:
        await recorder.record(new_order_id(), placed())
        await eventually(lambda: is_ready(projector))
        valkey.kill()
        await recorder.record(new_order_id(), placed())
        valkey.start()
        await assert_equal_to_the_log(settings)
        await eventually(lambda: is_ready(projector))


async def test_an_emptied_redis_is_built_again_without_anyone_asking(
    projector_settings: Settings, recorder: Recorder, settings: Settings, redis: Redis
) -> None:
    async with running_projector(projector_settings) as projector:
        await recorder.record(new_order_id(), placed(), paid())
        await eventually(lambda: is_ready(projector))
        await redis.flushall()
        await assert_equal_to_the_log(settings)


async def test_it_starts_before_the_database_is_migrated(
    projector_settings: Settings, connection: asyncpg.Connection[asyncpg.Record], recorder: Recorder, redis: Redis
) -> None:
    await connection.execute("alter sequence projector_epochs rename to not_there_yet")
    async with running_projector(projector_settings) as projector:
        assert (await projector.get("/readyz")).status_code == 503
        await connection.execute("alter sequence not_there_yet rename to projector_epochs")
        await eventually(position_is(redis, await recorder.record(new_order_id(), placed())))


async def test_it_tells_postgresql_how_far_each_read_model_is_wherever_it_is_kept(
    projector_settings: Settings, recorder: Recorder
) -> None:
    async def reported() -> dict[str, tuple[int, bool]]:
        rows = await recorder.connection.fetch(
            "select projection, position, log_id is not null from projection_progress"
        )
        return {name: (position, there) for name, position, there in rows}

    async with running_projector(projector_settings) as projector:
        await eventually(lambda: is_ready(projector))
        head = await recorder.record(new_order_id(), placed())
        everywhere = {
            name: (head if one.projection.feed is EVENT_LOG else 0, True) for name, one in PROJECTIONS.items()
        }
        await eventually(lambda: _equals(reported, everywhere))


@pytest.mark.promise("projectors", "The projector's log names the session that blocks it in PostgreSQL")
@pytest.mark.parametrize(
    ("projection", "statement"),
    [
        ("orders", "lock table events in access exclusive mode"),  # which it reads
        ("revenue_by_day", "select from read_models where projection = 'revenue_by_day' for update"),  # which it writes
    ],
)
async def test_it_logs_the_session_that_blocks_it_in_postgresql(
    projection: str, statement: str, projector_settings: Settings, recorder: Recorder, settings: Settings
) -> None:
    rival = await asyncpg.connect(settings.database_url.get_secret_value())
    async with running_projector(projector_settings) as projector:
        await eventually(lambda: is_ready(projector))
        with structlog.testing.capture_logs() as logged:
            async with rival.transaction():
                await rival.execute(statement)
                if projection == "revenue_by_day":  # no session can append to a locked table; it is read all the time
                    await recorder.record(new_order_id(), placed())

                def named() -> bool:
                    return any(
                        line["event"] == "slow call"
                        and line["what"] == projection
                        and rival.get_server_pid() in [blocker["pid"] for blocker in line["blockers"]]
                        for line in logged
                    )

                await eventually(named)
        await assert_equal_to_the_log(settings)
    await rival.close()


async def _equals(ask: Callable[[], Awaitable[object]], value: object) -> bool:
    return await ask() == value
