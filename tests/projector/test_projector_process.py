"""Which partitions a projector process joins for, takes and releases, and how it ends."""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic

import asyncpg
import pytest
import structlog
from pydantic import SecretStr
from redis.asyncio import Redis

from projector.byte_budget import ByteBudget
from projector.engine import BATCHES_BYTES
from projector.membership import Membership
from projector.partition_worker import LiveGeneration, PartitionWorker
from projector.progress_reporter import ProgressReporter
from projector.projections.orders import ORDERS
from projector.stores.redis_generations import RedisGenerationStore
from projector.worker_status import FIRST_RETRY_SECONDS
from shared.eventstore.blockers import SlowCallMonitor
from shared.eventstore.lease import try_acquire
from shared.eventstore.subscription import LogSession, open_session
from shared.postgres import connect
from shared.read_models.keys import lease_name
from shared.redis import create_redis
from shared.settings import Settings
from tests.orders import new_order_id, placed
from tests.projector.test_partition_worker import assert_equal_to_the_log
from tests.recording import Recorder
from tests.running import eventually, free_ports, is_ready, running_projector

NAMES = [lease_name(projection, 1, 0) for projection in ("orders", "revenue_by_day")]
_STANDING = """
select count(*) from pg_locks where locktype = 'advisory' and mode = 'ShareLock' and granted
and database = (select oid from pg_database where datname = current_database())
and (classid::bigint << 32) | objid::bigint = hashtextextended('candidate for ' || $1, 0)
"""
_WAITING = """
select count(*) from pg_stat_activity
where datname = current_database() and wait_event_type = 'Lock' and query like $1
"""
_SESSIONS = """
select pid from pg_stat_activity where datname = current_database() and application_name = 'orders-projector'
"""


@pytest.mark.promise("projectors", "A projector joins no partition that it still works on with a lost session")
async def test_it_stands_for_nothing_that_it_still_works_on_for_a_session_that_is_lost(
    projector_settings: Settings,
    recorder: Recorder,
    settings: Settings,
    connection: asyncpg.Connection[asyncpg.Record],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("shared.postgres.ANSWER_SECONDS", 60.0)
    rival = await asyncpg.connect(settings.database_url.get_secret_value())
    orders, revenue = NAMES
    async with running_projector(projector_settings) as projector:
        await eventually(lambda: is_ready(projector))
        async with rival.transaction():
            await rival.execute("select from read_models where projection = 'revenue_by_day' for update")
            await recorder.record(new_order_id(), placed())
            await eventually(lambda: connection.fetchval(_WAITING, "%with moved as%"))
            pid = await connection.fetchval(_SESSIONS)
            await connection.execute("select pg_terminate_backend($1, 10000)", pid)

            await eventually(lambda: connection.fetchval(_STANDING, orders))
            assert await connection.fetchval(_STANDING, revenue) == 0
        await eventually(lambda: connection.fetchval(_STANDING, revenue))
        await assert_equal_to_the_log(settings)
    await rival.close()


@pytest.mark.promise("projectors", "A partition is not left to a projector that never takes it")
async def test_what_another_stands_for_and_never_takes_is_not_left_to_it(
    projector_settings: Settings, recorder: Recorder, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("projector.assignment.PATIENCE_SECONDS", 0.1)
    await recorder.record(new_order_id(), placed())
    async with open_session(projector_settings, lambda: None, idle_seconds=60.0) as idler:
        await Membership(idler).join(NAMES)
        async with running_projector(projector_settings):
            await assert_equal_to_the_log(settings)


@pytest.mark.promise("projectors", "A projector that cannot reach a store backs off, and joins again once it can")
async def test_who_cannot_reach_a_store_waits_longer_each_time_and_stands_for_it_once_it_can(
    projector_settings: Settings, session: LogSession, redis: Redis, pool: asyncpg.Pool[asyncpg.Record]
) -> None:
    """Whatever others do meanwhile."""
    nobody = SecretStr(f"redis://127.0.0.1:{free_ports(1)[0]}")
    monitor = SlowCallMonitor(partial(connect, projector_settings, "blockers"), 60.0)
    started = monotonic()
    async with create_redis(projector_settings.model_copy(update={"redis_url": nobody})) as away:
        generation_store = RedisGenerationStore(away, ORDERS.name, ORDERS.version)
        worker = PartitionWorker(
            projector_settings,
            ORDERS,
            generation_store,
            LiveGeneration(1, 1),
            0,
            monitor,
            lambda: None,
            ByteBudget(BATCHES_BYTES),
        )
        for _ in range(3):
            held = await try_acquire(session, worker.lease_name)
            assert held is not None
            worker.start(held)
            await eventually(lambda: worker.idle)
            worker.stand_by()
            assert not worker.is_candidate(session)

    assert monotonic() - started >= FIRST_RETRY_SECONDS * (1 + 2 + 4)
    worker.store = RedisGenerationStore(redis, ORDERS.name, ORDERS.version).store(1)
    reporter = ProgressReporter(worker, pool, 0.1)
    reporting = asyncio.create_task(reporter.run())
    await eventually(lambda: worker.is_candidate(session))
    reporter.stop()
    await reporting


@pytest.mark.promise("projectors", "A projector stops in time, even while it removes a whole read model")
async def test_it_ends_in_time_also_while_a_whole_read_model_is_removed(
    projector_settings: Settings,
    recorder: Recorder,
    settings: Settings,
    connection: asyncpg.Connection[asyncpg.Record],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("projector.partition_worker.FINISH_SECONDS", 0.1)
    rival = await asyncpg.connect(settings.database_url.get_secret_value())
    await recorder.record(new_order_id(), placed())
    async with rival.transaction():
        async with running_projector(projector_settings) as projector:
            await eventually(lambda: is_ready(projector))
            await rival.execute("lock table read_model_documents in share mode")
            await connection.execute("update read_models set log_id = gen_random_uuid()")
            await eventually(lambda: connection.fetchval(_WAITING, "delete from read_model_documents%"))
            stopping = monotonic()
        assert monotonic() - stopping < 5.0
        assert not await connection.fetchval(_WAITING, "delete from read_model_documents%")
    async with running_projector(projector_settings):
        await assert_equal_to_the_log(settings)
    await rival.close()


async def test_progress_is_reported_as_soon_as_a_worker_has_started_not_a_heartbeat_later(
    projector_settings: Settings, recorder: Recorder, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    reported = (
        "select exists (select from read_model_heartbeats)"
        " and (select count(*) from projection_progress where position > 0) > 1"
    )
    await recorder.record(new_order_id(), placed())
    async with running_projector(projector_settings) as projector:
        await eventually(lambda: is_ready(projector))
    await connection.execute("delete from read_model_heartbeats; delete from projection_progress")
    async with running_projector(projector_settings, heartbeat_seconds=60.0):
        await eventually(lambda: connection.fetchval(reported))


@pytest.mark.promise("projectors", "Heartbeats continue after PostgreSQL refused one")
async def test_its_heart_beats_on_after_postgresql_has_refused_a_beat(
    projector_settings: Settings, connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    async def beats() -> bool:
        return bool(await connection.fetchval("select count(*) from read_model_heartbeats"))

    async with running_projector(projector_settings) as projector:
        await eventually(lambda: is_ready(projector))
        with structlog.testing.capture_logs() as logged:
            await connection.execute("alter table read_model_heartbeats rename to not_there")
            await eventually(lambda: any(line["event"] == "heartbeat not sent" for line in logged))
        await connection.execute("alter table not_there rename to read_model_heartbeats")
        await connection.execute("delete from read_model_heartbeats")
        await eventually(beats)
