"""The lag is measured so that a stuck read model never looks fresher than it is."""

from __future__ import annotations

from typing import Any, TypeAlias
from uuid import uuid4

import asyncpg
import httpx
import pytest
import structlog
from pydantic import SecretStr
from redis.asyncio import Redis

from query_service import projection_lag as module
from query_service.projection_lag import LagEstimate, MaxLag
from shared.eventstore.log import read_head
from shared.settings import Settings
from tests.faults.proxy import FaultProxy
from tests.faults.shop import at_port, port_of
from tests.orders import placed
from tests.query_service.reads import get, token_now
from tests.query_service.redis_read_model import checkpoint
from tests.recording import Recorder, make_older
from tests.running import eventually, running_query_service

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
META = "{orders.0}:meta"
REVENUE = "/reports/revenue?from=2026-01-01&to=2026-01-31"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1_000.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


def test_the_lag_is_unknown_before_the_first_measurement() -> None:
    assert LagEstimate().milliseconds is None


def test_a_read_model_that_shows_everything_is_not_behind(clock: list[float]) -> None:
    lag = LagEstimate()
    lag.update(clock[0], 0.0)
    clock[0] += 0.6
    assert lag.milliseconds == 0


def test_the_lag_grows_with_the_clock_until_something_else_is_learnt(clock: list[float]) -> None:
    lag = LagEstimate()
    lag.update(clock[0], 1.5)
    assert lag.milliseconds == 1_500
    clock[0] += 2
    assert lag.milliseconds == 3_500
    lag.update(clock[0], 0.0)
    assert lag.milliseconds == 0


def test_while_nothing_is_learnt_it_is_an_upper_bound(clock: list[float]) -> None:
    lag = LagEstimate()
    lag.update(clock[0], 0.0)
    clock[0] += 2
    assert lag.milliseconds == 2_000
    clock[0] += 60
    assert lag.milliseconds == 62_000


def test_several_together_are_as_far_behind_as_the_last_and_unknown_while_one_is(clock: list[float]) -> None:
    one, other = LagEstimate(), LagEstimate()
    one.update(clock[0], 1.5)
    assert MaxLag(one, other).milliseconds is None
    other.update(clock[0], 0.0)
    assert MaxLag(one, other).milliseconds == 1_500


async def test_a_measurement_that_fails_is_not_the_last(
    queries_alone: httpx.AsyncClient,
    recorder: Recorder,
    redis: Redis,
    connection: Connection,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever it failed for: here what no projector would write."""
    monkeypatch.setattr(module, "POLL_SECONDS", 0.01)
    await recorder.record("42", placed())
    await make_older(connection, 60)
    with structlog.testing.capture_logs() as logged:
        await redis.hset(META, mapping=await all_shown(connection) | {"position": "nonsense"})
        await eventually(lambda: [line["event"] for line in logged].count("lag not measured") > 1)

    await redis.hset(META, mapping=await all_shown(connection))
    await eventually(lambda: is_behind(queries_alone, by_seconds=0))


async def test_a_server_that_hangs_does_not_keep_the_service_from_starting(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_POLL_SECONDS", 0.01)
    for patience in ("shared.postgres.CONNECT_SECONDS", "query_service.postgresql_store.ANSWER_SECONDS"):
        monkeypatch.setattr(patience, 20.0)
    async with FaultProxy(port_of(settings.database_url.get_secret_value())) as proxy:
        proxy.lose(requests=True, answers=True)
        async with running_query_service(through(proxy, settings)) as client:
            assert (await client.get("/orders/42")).headers["Projection-Lag"] == "unknown"


def through(proxy: FaultProxy, settings: Settings) -> Settings:
    """Settings of a query service that reaches PostgreSQL through this proxy."""
    url = at_port(settings.database_url.get_secret_value(), proxy.port)
    return settings.model_copy(update={"database_url": SecretStr(url)})


async def lag_of(queries: httpx.AsyncClient, path: str, **headers: str) -> int:
    return int((await queries.get(path, headers=headers)).headers["Projection-Lag"])


@pytest.mark.promise("lag", "A stuck read model shows a growing lag, in every store")
async def test_a_read_model_that_is_stuck_is_seen_to_fall_behind_wherever_it_is_kept(
    queries: httpx.AsyncClient, recorder: Recorder, connection: Connection
) -> None:
    await recorder.record("42", placed())
    await get(queries, "/orders/42", recorder)
    await get(queries, REVENUE, recorder)
    await recorder.record_raw("43", "OrderTeleported", 1, "{}")
    await make_older(connection, 60)
    for path in ("/orders/42", "/orders/nowhere", REVENUE):

        async def behind(path: str = path) -> bool:
            return await lag_of(queries, path) >= 60_000

        await eventually(behind)
        first = await lag_of(queries, path)

        async def later(path: str = path, first: int = first) -> bool:
            return await lag_of(queries, path) > first

        await eventually(later)
        late = await queries.get(path, headers={"Consistency-Token": await token_now(recorder), "Prefer": "wait=0"})
        assert (late.status_code, late.json()["code"]) == (503, "projection-lagging")
        assert int(late.headers["Projection-Lag"]) >= late.json()["lag_ms"] >= first
    statuses = (await queries.get("/projections")).json()["projections"]
    assert {status["name"]: status["level"] for status in statuses} == {
        "orders": "emergency",
        "revenue_by_day": "emergency",
        "accounts": "normal",  # it does not read the event
        "customers": "normal",
        "stock": "normal",
        "processes": "normal",
        "products": "normal",
        "categories": "normal",
    }
    metrics = (await queries.get("/metrics")).text
    for name in ("orders", "revenue_by_day"):
        assert any(
            line.startswith(f'orders_query_lag_seconds{{projection="{name}"}}') and float(line.split()[1]) >= 60
            for line in metrics.splitlines()
        )


@pytest.mark.promise("lag", "While PostgreSQL hangs, answers carry an upper bound of the lag")
async def test_while_postgresql_hangs_orders_are_served_with_an_upper_bound(
    queries: httpx.AsyncClient, recorder: Recorder, settings: Settings
) -> None:
    await recorder.record("42", placed())
    await get(queries, "/orders/42", recorder)
    async with (
        FaultProxy(port_of(settings.database_url.get_secret_value())) as proxy,
        running_query_service(through(proxy, settings)) as client,
    ):

        async def current() -> bool:
            return bool((await client.get("/orders/42")).headers.get("Projection-Lag") == "0")

        await eventually(current)
        proxy.lose(requests=True, answers=True)

        async def bounded() -> bool:
            return await lag_of(client, "/orders/42") > 1_000

        await eventually(bounded)
        proxy.cut()
        await proxy.heal()
        await eventually(current)


@pytest.mark.promise("lag", "A read model of another log counts as showing nothing of this one")
async def test_a_read_model_of_another_log_shows_nothing_of_this_one(
    queries_alone: httpx.AsyncClient, recorder: Recorder, redis: Redis, connection: Connection
) -> None:
    await recorder.record("42", placed())
    await make_older(connection, 60)
    meta = await all_shown(connection)
    await redis.hset(META, mapping=meta)
    await eventually(lambda: is_behind(queries_alone, by_seconds=0))

    await redis.hset(META, "position", 2)  # of what a restored log has lost
    await eventually(lambda: is_behind(queries_alone, by_seconds=60))

    await redis.hset(META, mapping=meta)
    await eventually(lambda: is_behind(queries_alone, by_seconds=0))
    await redis.hset(META, "log_id", uuid4().hex)
    await eventually(lambda: is_behind(queries_alone, by_seconds=60))


async def all_shown(connection: Connection) -> dict[Any, Any]:
    """What Redis holds of a read model that is at the head of the log."""
    head = await read_head(connection)
    return checkpoint(head.position, head.log_id)


async def is_behind(queries: httpx.AsyncClient, by_seconds: float) -> bool:
    lag = await lag_of(queries, "/orders/42")
    return lag >= by_seconds * 1_000 if by_seconds else lag == 0
