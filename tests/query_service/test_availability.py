"""What queries say while a server is away, and that they recover without a restart."""

from __future__ import annotations

import asyncio
import re

import httpx
import pytest
from prometheus_client import REGISTRY
from redis.asyncio import Redis

from cli.stack.embedded_valkey import EmbeddedValkey
from shared.read_models.keys import PartitionKeys
from shared.read_models.lag import LagLevel, level_of
from shared.settings import Settings
from tests.catalogue import of_the_log
from tests.orders import placed
from tests.query_service.reads import get, token_now
from tests.query_service.redis_read_model import write, write_heartbeat
from tests.recording import Recorder
from tests.running import eventually, free_ports, running_query_service


async def test_ready_with_redis_a_read_model_and_a_projector_that_lives(queries: httpx.AsyncClient) -> None:
    assert (await queries.get("/readyz")).status_code == 200


async def test_not_ready_without_a_read_model(queries_alone: httpx.AsyncClient) -> None:
    answer = await queries_alone.get("/readyz")

    assert (answer.status_code, answer.json()["code"]) == (503, "not-ready")


async def test_not_ready_when_the_last_heartbeat_is_too_old(queries_alone: httpx.AsyncClient, redis: Redis) -> None:
    keys = PartitionKeys("orders")
    await write(redis, keys, 0, {})
    assert "no heartbeat" in (await queries_alone.get("/readyz")).json()["detail"]

    await write_heartbeat(redis, keys, age_seconds=60)
    assert re.search("6[0-9] s old", (await queries_alone.get("/readyz")).json()["detail"])

    await write_heartbeat(redis, keys)
    assert (await queries_alone.get("/readyz")).status_code == 200


async def test_without_redis_queries_are_503_until_it_is_back(
    queries: httpx.AsyncClient, recorder: Recorder, valkey: EmbeddedValkey
) -> None:
    await recorder.record("42", placed())
    assert (await get(queries, "/orders/42", recorder)).status_code == 200

    valkey.kill()
    for path in ("/orders/42", "/orders", "/customers/alice/orders", "/projections"):
        answer = await queries.get(path)
        assert (answer.status_code, answer.json()["code"]) == (503, "read-model-unavailable"), path
        assert int(answer.headers["retry-after"]) >= 1
    assert (await queries.get("/readyz")).status_code == 503
    assert (await queries.get("/livez")).status_code == 200
    valkey.start()

    headers = {"Consistency-Token": await token_now(recorder)}

    async def answered() -> bool:
        return (await queries.get("/orders/42", headers=headers)).status_code == 200

    await eventually(answered)


async def test_the_scripts_are_loaded_again_when_redis_has_lost_them(queries: httpx.AsyncClient, redis: Redis) -> None:
    await redis.script_flush()

    assert (await queries.get("/orders")).status_code == 200


async def test_projections_tell_head_checkpoint_and_lag(queries: httpx.AsyncClient, recorder: Recorder) -> None:
    head = await recorder.record("42", placed())
    await get(queries, "/orders/42", recorder)

    status, revenue, *_ = (await queries.get("/projections")).json()["projections"]

    assert (revenue["name"], revenue["head"], revenue["rebuilding"]) == ("revenue_by_day", head, False)
    beat = status.pop("heartbeat_age_ms")
    assert 0 <= beat < 5_000
    assert status.pop("projector")
    (partition,) = status.pop("partitions")
    assert (partition["partition"], partition["checkpoint"], partition["projector_state"]) == (0, head, "active")
    assert status == {
        "name": "orders",
        "generation": 1,
        "previous_generation": None,
        "building_generation": None,
        "rebuilding": False,
        "head": head,
        "checkpoint": head,
        "position_lag": 0,
        "time_lag_ms": 0,
        "level": "normal",
        "recommended_action": "None.",
        "projector_state": "active",
        "stuck_because": None,
        "stopped_at": None,
        "parked": 0,
        "parked_events": [],
    }


async def test_projections_show_the_lag_without_a_projector(
    queries_alone: httpx.AsyncClient, recorder: Recorder
) -> None:
    await recorder.record("42", placed())

    async def lags() -> bool:
        statuses = of_the_log(await queries_alone.get("/projections"))
        for status in statuses:
            assert (status["head"], status["checkpoint"], status["position_lag"]) == (1, 0, 1)
            assert (status["rebuilding"], status["heartbeat_age_ms"]) == (True, None)
        return all(status["time_lag_ms"] > 200 and status["level"] == "warning" for status in statuses)

    await eventually(lags)


async def test_without_postgresql_orders_are_served_and_only_the_lag_is_unknown(
    queries: httpx.AsyncClient, settings: Settings
) -> None:
    (nobody_there,) = free_ports(1)
    async with running_query_service(settings, database_url=f"postgresql://x:y@127.0.0.1:{nobody_there}/x") as client:
        answer = await client.get("/projections")
        assert (answer.status_code, answer.json()["code"]) == (503, "log-unavailable")
        assert (await client.get("/orders")).json() == (await queries.get("/orders")).json()


@pytest.mark.parametrize(
    ("lag_ms", "level"),
    [
        (0, LagLevel.NORMAL),
        (200, LagLevel.NORMAL),
        (200.1, LagLevel.WARNING),
        (2_000, LagLevel.WARNING),
        (2_001, LagLevel.CRITICAL),
        (30_000, LagLevel.CRITICAL),
        (30_001, LagLevel.EMERGENCY),
    ],
)
def test_levels_are_those_of_the_field(lag_ms: float, level: LagLevel) -> None:
    assert level_of(lag_ms / 1_000).level == level


async def test_requests_that_come_together_share_their_round_trips(
    queries: httpx.AsyncClient, recorder: Recorder
) -> None:
    for number in range(20):
        await recorder.record(str(number), placed())
    await get(queries, "/orders", recorder)

    def reads() -> float:
        """Round trips of the query service for its clients."""
        return REGISTRY.get_sample_value("orders_redis_batch_reads_count") or 0.0

    before = reads()
    answers = await asyncio.gather(*(queries.get(f"/orders/{number % 20}") for number in range(400)))

    assert [answer.json()["order_id"] for answer in answers] == [str(number % 20) for number in range(400)]
    assert reads() - before < 300
