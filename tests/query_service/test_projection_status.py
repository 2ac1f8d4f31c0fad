"""What operators see: `/projections`, and `orders projections status`, which prints it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from cli.projection_admin.status import NoAnswer, show_status
from query_service import postgresql_store
from shared.read_models.keys import PartitionKeys
from shared.settings import Settings
from tests.catalogue import of_the_log
from tests.given_when_then import problem
from tests.orders import placed
from tests.query_service.reads import get
from tests.query_service.redis_read_model import checkpoint, write_heartbeat
from tests.recording import Recorder
from tests.running import eventually

# For an answer while a session blocks. Mostly two; but a request to cancel that overtakes its statement (the server had
# not read it yet) is lost, and the connection is given up only `ANSWER_SECONDS` later.
LONGEST_SECONDS = 12.0


@asynccontextmanager
async def rival(settings: Settings, statement: str) -> AsyncIterator[int]:
    """The pid of a foreign session, which ran the statement and never ends its transaction."""
    url = settings.database_url.get_secret_value()
    connection = await asyncpg.connect(url, server_settings={"application_name": "a rival"})
    try:
        await connection.execute("begin")
        await connection.execute(statement)
        yield connection.get_server_pid()
    finally:
        await connection.close()


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Any:
    """What `orders projections status` prints."""

    async def show(queries: httpx.AsyncClient) -> str:
        await asyncio.to_thread(show_status, str(queries.base_url), None)
        return capsys.readouterr().out

    return show


@pytest.mark.promise("lag", "Blocking sessions are named even when the lag cannot be measured")
async def test_a_blocking_session_is_named_where_the_lag_cannot_be_measured(
    queries_alone: httpx.AsyncClient, recorder: Recorder, settings: Settings, shown: Any
) -> None:
    head = await recorder.record("42", placed())
    async with rival(settings, "lock table events in access exclusive mode") as pid:
        answers = []

        async def named() -> bool:
            async with asyncio.timeout(LONGEST_SECONDS):
                answers.append(await queries_alone.get("/projections"))
            stalls = answers[-1].json()["stalls"]
            return (pid, "a rival", "orders-query") in [
                (stall["pid"], stall["application"], stall["blocked_application"]) for stall in stalls
            ]

        await eventually(named, LONGEST_SECONDS)
        assert {answer.status_code for answer in answers} == {200}
        for status in of_the_log(answers[-1]):
            assert (status["head"], status["checkpoint"], status["position_lag"]) == (head, 0, head)
            assert (status["time_lag_ms"], status["level"]) == (None, None)
            assert "session that blocks the log" in status["recommended_action"]
            assert [(one["position_lag"], one["level"]) for one in status["partitions"]] == [(head, None)]
        told = await shown(queries_alone)
        assert f"Blocks the log: pid {pid} (a rival, idle in transaction), its transaction is" in told
        assert "; orders-query has waited for " in told
        assert "unknown" in told
    assert "unknown" not in await shown(queries_alone)


async def test_what_shows_everything_is_not_behind_though_the_log_cannot_be_read(
    queries: httpx.AsyncClient, recorder: Recorder, settings: Settings
) -> None:
    head = await recorder.record("42", placed())
    for path in ("/orders/42", "/reports/revenue?from=2026-01-01&to=2026-01-31"):
        await get(queries, path, recorder)
    async with rival(settings, "lock table events in access exclusive mode"):
        for status in of_the_log(await queries.get("/projections")):
            assert (status["head"], status["checkpoint"], status["position_lag"]) == (head, head, 0)
            assert (status["time_lag_ms"], status["level"]) == (0, "normal")


@pytest.mark.promise("lag", "Blocking sessions are named even when nothing else can be reported")
@pytest.mark.parametrize(
    ("statement", "head"),
    [
        ("lock table log_head in access exclusive mode", None),  # the head of the log is unknown
        ("lock table read_models in access exclusive mode", 503),  # so is the checkpoint of the reports
    ],
)
async def test_a_blocking_session_is_named_whatever_else_cannot_be_measured(
    statement: str,
    head: int | None,
    queries_alone: httpx.AsyncClient,
    settings: Settings,
    shown: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(postgresql_store, "ANSWER_SECONDS", 2.7)
    async with rival(settings, statement) as pid:
        answers: list[httpx.Response] = []

        async def named() -> bool:
            """To several at once: more than there are connections for the questions that wait."""
            async with asyncio.timeout(LONGEST_SECONDS):
                answers[:] = await asyncio.gather(*(queries_alone.get("/projections") for _ in range(8)))
            return all(pid in [stall["pid"] for stall in answer.json()["stalls"]] for answer in answers)

        await eventually(named, LONGEST_SECONDS)
        monkeypatch.setattr(postgresql_store, "ANSWER_SECONDS", 0.7)
        if head is None:
            for status in of_the_log(answers[-1]):
                assert (status["head"], status["position_lag"], status["level"]) == (None, None, None)
            assert f"Blocks the log: pid {pid}" in await shown(queries_alone)
        else:
            problem(answers[-1], 503, "read-model-unavailable")
            with pytest.raises(NoAnswer, match=rf"(?s)PostgreSQL, .*\nBlocks the log: pid {pid} "):
                await shown(queries_alone)


@pytest.mark.promise("lag", "Operators see each read model's projectors, what blocks them, and its generations")
async def test_operators_see_the_worker_of_a_read_model_why_it_is_stuck_and_its_generations(
    queries_alone: httpx.AsyncClient, redis: Redis, shown: Any
) -> None:
    keys = PartitionKeys("orders", generation=2)
    await redis.hset(keys.generations, mapping={"live": 2, "previous": 1, "building": 3})
    await redis.hset(keys.meta, mapping=checkpoint(7, ready_at=9, generation=2))
    await write_heartbeat(redis, keys, age_seconds=60, worker="host-1:4711", state="stuck", reason="no such host")

    _, orders, revenue, *_, trouble = (await shown(queries_alone)).splitlines()

    assert orders.startswith("orders ")
    assert " generation 2, 1 kept, 3 building, rebuilding: queries wait " in orders
    assert "host-1:4711 stuck, 6" in orders
    assert " s ago" in orders
    assert revenue.startswith("revenue_by_day ")
    assert " generation 1, rebuilding: queries wait " in revenue
    assert "none" in revenue
    assert trouble == "orders is stuck: no such host"
