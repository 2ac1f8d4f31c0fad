"""A clock that was ahead makes no read model look current: a lag that cannot be known is reported as unknown."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from cli.projection_admin.status import show_status
from command_service import throttle as throttle_module
from projector.stores.postgres import PostgresStore
from projector.stores.redis import RedisStore
from query_service import log_reader as log_reader_module
from query_service.log_reader import LogReader
from shared.eventstore import log as event_log
from shared.read_models import progress
from shared.read_models.keys import Checkpoint, PartitionKeys
from shared.read_models.lag import MAX_HEADS, HeadHistory
from shared.settings import Settings
from tests.catalogue import of_the_log
from tests.orders import new_order_id, order_body, placed
from tests.query_service.redis_read_model import checkpoint, write_heartbeat
from tests.recording import Recorder, make_older
from tests.running import eventually, running_command_service, running_projector, running_query_service

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

HOUR = 3_600
KEYS = PartitionKeys("orders")


@pytest.fixture
async def events_ahead(connection: Connection, recorder: Recorder) -> Connection:
    """A log of an event that was recorded under a clock that was an hour ahead, and of four that followed."""
    await connection.execute("update log_head set recorded_at = clock_timestamp() + interval '1 hour'")
    for _ in range(5):
        await recorder.record(new_order_id(), placed())
    return connection


@pytest.fixture
async def queries(events_ahead: Connection, redis: Redis, settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A query service whose read model of orders shows nothing of them."""
    log_id = (await event_log.read_head(events_ahead)).log_id
    await redis.hset(KEYS.meta, mapping=checkpoint(0, log_id))
    async with running_query_service(settings) as queries:
        yield queries


@pytest.mark.promise("lag", "The lag is unknown while events that a read model does not show have a time in the future")
async def test_answers_and_the_status_say_that_the_lag_is_unknown(
    queries: httpx.AsyncClient, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in ("/orders/42", "/reports/revenue?from=2026-01-01&to=2026-01-31", "/projections"):
        assert (await queries.get(path)).headers["Projection-Lag"] == "unknown"

    reports = of_the_log(await queries.get("/projections"))
    for report in reports:
        figures: list[dict[str, Any]] = [report, *report["partitions"]]
        assert [(one["position_lag"], one["time_lag_ms"], one["level"]) for one in figures] == [(5, None, None)] * 2
        assert "clock" in report["recommended_action"]

    await asyncio.to_thread(show_status, str(queries.base_url), None)
    printed = capsys.readouterr().out
    assert len(re.findall(" 5 +unknown ", printed)) == printed.count("clock") == len(reports)
    assert printed.count("unknown") == 3 * len(reports)  # the level, the time and the advice


async def test_queries_export_no_lag_in_time(queries: httpx.AsyncClient) -> None:
    metrics = (await queries.get("/metrics")).text
    assert 'orders_query_lag_seconds{projection="orders"}' not in metrics
    assert 'orders_projection_heartbeat_age_seconds{projection="orders"}' in metrics


async def test_a_lag_that_was_known_is_not_kept(
    queries: httpx.AsyncClient, events_ahead: Connection, redis: Redis, recorder: Recorder
) -> None:
    async def lag() -> str:
        return (await queries.get("/orders/42")).headers["Projection-Lag"]

    async def is_current() -> bool:
        return await lag() == "0"

    async def is_unknown() -> bool:
        return await lag() == "unknown"

    head = await event_log.read_head(events_ahead)
    await redis.hset(KEYS.meta, mapping=checkpoint(head.position, head.log_id))
    await eventually(is_current)
    await recorder.record(new_order_id(), placed())
    await eventually(is_unknown)


@pytest.mark.usefixtures("events_ahead")
async def test_the_projector_exports_its_lag_in_events_alone(recorder: Recorder, settings: Settings) -> None:
    await recorder.record_raw(new_order_id(), "OrderTeleported", 1, "{}")
    async with running_projector(settings) as projector:

        async def stopped() -> bool:
            metrics = (await projector.get("/metrics")).text
            return (
                'orders_projection_lag_events{partition="0",projection="orders"} 1.0' in metrics
                and 'orders_projection_lag_seconds{partition="0",projection="orders"}' not in metrics
            )

        await eventually(stopped)


@pytest.mark.promise("overload", "A read model whose lag is unknown throttles commands 30 s after it was seen to lag")
async def test_commands_are_throttled_once_the_lag_was_seen_for_longer_than_it_may_last(
    events_ahead: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    monkeypatch.setattr(throttle_module, "monotonic", lambda: now[0])
    monkeypatch.setattr(throttle_module, "_POLL_SECONDS", 0.05)
    log_id = (await event_log.read_head(events_ahead)).log_id
    await progress.report(events_ahead, "orders", Checkpoint(log_id, 3, 0, 1))
    async with running_command_service(settings) as url, httpx.AsyncClient(base_url=url) as commands:

        async def some_refused() -> bool:
            answers = [await commands.post("/orders", json=order_body()) for _ in range(5)]
            return any(answer.status_code == 503 for answer in answers)

        async def some_refused_later() -> bool:
            now[0] += 31
            return await some_refused()

        assert not await some_refused()
        await eventually(some_refused_later)


async def test_a_clock_that_catches_up_does_not_make_events_younger(
    events_ahead: Connection, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_000.0]
    monkeypatch.setattr(log_reader_module, "monotonic", lambda: now[0])
    pool = await asyncpg.create_pool(database_url, min_size=0)
    reader = LogReader(pool)
    assert (await reader.lag(None)).seconds is None
    await make_older(events_ahead, HOUR)
    now[0] += HOUR
    lag = await reader.lag(None)
    assert lag.seconds is not None
    assert lag.seconds >= HOUR
    pool.terminate()


def test_the_heads_that_a_process_has_seen_are_bounded_and_of_one_log() -> None:
    heads = HeadHistory()
    for second in range(2 * MAX_HEADS):
        heads.add(second, float(second))
    assert heads.least_age(0, 2.0 * MAX_HEADS) == MAX_HEADS, "as long as it goes back"
    assert heads.least_age(2 * MAX_HEADS - 1, 2.0 * MAX_HEADS) == 0
    heads.add(5, 2.0 * MAX_HEADS)  # restored
    assert heads.least_age(4, 2.0 * MAX_HEADS + 1) == 1


class TestAHeartbeatFromTheFuture:
    async def test_is_of_no_known_age(self, queries: httpx.AsyncClient, redis: Redis) -> None:
        await write_heartbeat(redis, KEYS)
        assert (await queries.get("/projections")).json()["projections"][0]["heartbeat_age_ms"] is not None
        await write_heartbeat(redis, KEYS, age_seconds=-HOUR)
        assert (await queries.get("/projections")).json()["projections"][0]["heartbeat_age_ms"] is None
        assert (await queries.get("/readyz")).status_code == 503

    async def test_does_not_let_other_projectors_stand_by(
        self, redis: Redis, connection: Connection, settings: Settings
    ) -> None:
        in_redis = RedisStore(redis, KEYS)
        pool = await asyncpg.create_pool(settings.database_url.get_secret_value(), min_size=0)
        in_postgresql = PostgresStore(pool, "orders", ())
        for store in (in_redis, in_postgresql):
            await store.heartbeat(1, "w", "active")
            assert await store.heartbeat_age("other", "standby", "", 10) is not None
        await write_heartbeat(redis, KEYS, age_seconds=-HOUR)
        await connection.execute("update read_model_heartbeats set beat_at = beat_at + interval '1 hour'")
        for store in (in_redis, in_postgresql):
            assert await store.heartbeat_age("other", "standby", "", 10) is None
        pool.terminate()
