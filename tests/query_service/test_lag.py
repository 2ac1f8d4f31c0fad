"""How stale answers are is measured so that a read model that is stuck never looks better than it is."""

from __future__ import annotations

import asyncio
from typing import Any, TypeAlias
from uuid import uuid4

import asyncpg
import httpx
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from query_service import lag as module
from query_service.app import create_app
from query_service.lag import Furthest, Lag, looking_at
from query_service.reader import ReadModelUnavailable
from shared.event_store import read_head
from shared.settings import Settings
from tests.faults.proxy import Wire
from tests.faults.shop import at_port, port_of
from tests.orders import placed
from tests.query_service.reading import get, token_now
from tests.recording import Recorder, make_older
from tests.roles import settings_of
from tests.running import eventually, free_ports, running_app

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
REVENUE = "/reports/revenue?from=2026-01-01&to=2026-01-31"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1_000.0]
    monkeypatch.setattr(module, "monotonic", lambda: now[0])
    return now


def test_nothing_is_known_before_the_first_look() -> None:
    assert Lag().milliseconds is None


def test_a_read_model_that_shows_everything_is_not_behind(clock: list[float]) -> None:
    lag = Lag()
    lag.learn(clock[0], 0.0)
    clock[0] += 0.6
    assert lag.milliseconds == 0


def test_the_lag_grows_with_the_clock_until_something_else_is_learnt(clock: list[float]) -> None:
    lag = Lag()
    lag.learn(clock[0], 1.5)
    assert lag.milliseconds == 1_500
    clock[0] += 2
    assert lag.milliseconds == 3_500
    lag.learn(clock[0], 0.0)
    assert lag.milliseconds == 0


def test_while_nothing_is_learnt_it_is_an_upper_bound(clock: list[float]) -> None:
    lag = Lag()
    lag.learn(clock[0], 0.0)
    clock[0] += 2
    assert lag.milliseconds == 2_000
    clock[0] += 60
    assert lag.milliseconds == 62_000


def test_several_together_are_as_far_behind_as_the_last_and_unknown_while_one_is(clock: list[float]) -> None:
    one, other = Lag(), Lag()
    one.learn(clock[0], 1.5)
    assert Furthest(one, other).milliseconds is None
    other.learn(clock[0], 0.0)
    assert Furthest(one, other).milliseconds == 1_500


async def test_a_look_that_fails_is_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    class Failing:
        looks = 0

        async def look(self) -> None:
            self.looks += 1
            raise ReadModelUnavailable if self.looks == 1 else ValueError

    monkeypatch.setattr(module, "LOOK_SECONDS", 0.001)
    source = Failing()
    async with looking_at([source]):
        await eventually(lambda: source.looks > 2)


async def test_a_server_that_hangs_does_not_keep_the_service_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging:
        async def look(self) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(module, "FIRST_LOOK_SECONDS", 0.01)
    async with asyncio.timeout(1), looking_at([Hanging()]):
        pass


async def lag_of(queries: httpx.AsyncClient, path: str, **headers: str) -> int:
    return int((await queries.get(path, headers=headers)).headers["Projection-Lag"])


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
    assert {(status["name"], status["level"]) for status in statuses} == {
        ("orders", "emergency"),
        ("revenue_by_day", "emergency"),
    }
    metrics = (await queries.get("/metrics")).text
    for name in ("orders", "revenue_by_day"):
        assert any(
            line.startswith(f'orders_query_lag_seconds{{projection="{name}"}}') and float(line.split()[1]) >= 60
            for line in metrics.splitlines()
        )


async def test_while_postgresql_hangs_orders_are_served_with_an_upper_bound(
    queries: httpx.AsyncClient, recorder: Recorder, settings: Settings
) -> None:
    await recorder.record("42", placed())
    await get(queries, "/orders/42", recorder)
    ours = settings_of(settings, "orders_auditor")
    url = ours.database_url.get_secret_value()
    (port,) = free_ports(1)
    async with Wire(port_of(url)) as wire:
        through = ours.model_copy(update={"database_url": SecretStr(at_port(url, wire.port))})
        async with running_app(create_app(through), port) as address, httpx.AsyncClient(base_url=address) as client:

            async def current() -> bool:
                return bool((await client.get("/orders/42")).headers.get("Projection-Lag") == "0")

            await eventually(current)
            wire.lose(requests=True, answers=True)

            async def bounded() -> bool:
                return await lag_of(client, "/orders/42") > 1_000

            await eventually(bounded)
            wire.cut()
            await wire.heal()
            await eventually(current)


async def test_a_read_model_of_another_log_shows_nothing_of_this_one(
    queries_alone: httpx.AsyncClient, recorder: Recorder, redis: Redis, connection: Connection
) -> None:
    await recorder.record("42", placed())
    await make_older(connection, 60)
    log_id = (await read_head(connection)).log_id
    meta: dict[Any, Any] = {"log_id": log_id.hex, "position": 1, "serve_from": 0, "generation": 1}
    await redis.hset("{orders.0}:meta", mapping=meta)
    await eventually(lambda: is_behind(queries_alone, by_seconds=0))

    await redis.hset("{orders.0}:meta", "position", 2)  # of what a restored log has lost
    await eventually(lambda: is_behind(queries_alone, by_seconds=60))

    await redis.hset("{orders.0}:meta", mapping=meta)
    await eventually(lambda: is_behind(queries_alone, by_seconds=0))
    await redis.hset("{orders.0}:meta", "log_id", uuid4().hex)
    await eventually(lambda: is_behind(queries_alone, by_seconds=60))


async def is_behind(queries: httpx.AsyncClient, by_seconds: float) -> bool:
    lag = await lag_of(queries, "/orders/42")
    return lag >= by_seconds * 1_000 if by_seconds else lag == 0
