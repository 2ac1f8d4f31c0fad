"""Every answer carries `Projection-Lag`: of every route, and however a request fails."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TypeAlias
from urllib.parse import quote
from uuid import uuid4

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from cli.stack.embedded_postgres import EmbeddedPostgres
from query_service import projection_lag
from shared.eventstore.log import read_head
from shared.settings import Settings
from tests.documented import read_document
from tests.given_when_then import problem
from tests.orders import placed
from tests.query_service.event_source import following
from tests.query_service.reads import get
from tests.recording import Recorder, make_older
from tests.roles import url_of
from tests.running import eventually, free_ports, fresh_database, running_query_service

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
AN_AGE = 60_000  # ms: what is behind is further behind than that
REVENUE = "/reports/revenue?from=2026-01-01&to=2026-01-31"
FROM_ORDERS = ["/orders/42", "/orders/nowhere", "/orders", "/customers/alice/orders"]
STREAMS = ["/orders/42/events", "/customers/alice/orders/events"]


def from_log() -> list[str]:
    now = quote(datetime.now(UTC).isoformat())
    past = [f"/orders/42?as_of={now}", f"/orders/42?known_at={now}"]
    return ["/orders/42/history", *past, "/orders/nowhere/history", "/events"]


def said(answer: httpx.Response) -> str:
    """The header, which an answer carries once."""
    [said] = answer.headers.get_list("projection-lag")
    return str(said)


def lag_in(answer: httpx.Response) -> int:
    return int(said(answer))


@pytest.fixture
async def shown(queries: httpx.AsyncClient, recorder: Recorder) -> httpx.AsyncClient:
    """Queries of an order that all read models show, with a lag of 0."""
    await recorder.record("42", placed())
    for path in ("/orders/42", REVENUE):
        await get(queries, path, recorder)
    for path in ("/orders/42", REVENUE, "/orders/42/history"):

        async def current(path: str = path) -> bool:
            return lag_in(await queries.get(path)) == 0

        await eventually(current)
    return queries


@pytest.mark.promise("lag", "Every answer of every route, errors included, says how stale it is")
async def test_answers_of_every_route_carry_the_lag(shown: httpx.AsyncClient) -> None:
    for path in (*FROM_ORDERS, *from_log(), REVENUE, "/projections"):
        answer = await shown.get(path)
        assert answer.status_code == (404 if "nowhere" in path else 200), path
        assert lag_in(answer) < AN_AGE, path
        if answer.status_code == 200 and "ETag" in answer.headers:
            known = await shown.get(path, headers={"If-None-Match": answer.headers["ETag"]})
            assert known.status_code == 304
            assert lag_in(known) < AN_AGE, path
    for path in STREAMS:
        async with following(shown, path) as source:
            assert int(source.headers["projection-lag"]) < AN_AGE


@pytest.mark.promise("lag", "Every answer of every route, errors included, says how stale it is")
async def test_an_error_answer_carries_the_lag_whatever_is_wrong_with_the_request(
    shown: httpx.AsyncClient, connection: Connection
) -> None:
    head = await read_head(connection)
    yet_to_come = f"{head.log_id.hex}-{head.position + 1}"
    for path in (*FROM_ORDERS, *from_log(), *STREAMS, REVENUE):
        for token, status, code in (
            ("x", 400, "malformed-token"),
            (f"{uuid4().hex}-1", 400, "unknown-log"),
            (yet_to_come, 400, "token-beyond-log"),
        ):
            answer = await shown.get(path, headers={"Consistency-Token": token, "Prefer": "wait=0"})
            problem(answer, status, code)
            assert lag_in(answer) < AN_AGE, (path, code)
    for path, status, code in (
        ("/orders/42?as_of=tomorrow", 422, "invalid-request"),
        ("/orders/42?known_at=2999-01-01T00:00:00Z", 422, "time-in-the-future"),
        ("/orders/%20", 422, "invalid-request"),
        ("/orders?limit=0", 422, "invalid-request"),
        ("/orders?cursor=x", 400, "malformed-cursor"),
        ("/customers/alice/orders?cursor=x", 400, "malformed-cursor"),
        ("/orders/42/history?limit=0", 422, "invalid-request"),
        ("/orders/42/events?after=99", 400, "unknown-position"),
        ("/orders/nowhere/events", 404, "order-not-found"),
        ("/reports/revenue", 422, "invalid-request"),
        ("/projections?x=y", 400, "malformed-query"),
        ("/nowhere", 404, "no-such-route"),
    ):
        answer = await shown.get(path)
        problem(answer, status, code)
        assert lag_in(answer) < AN_AGE, path
    for path in read_document("query")["paths"]:
        if path.startswith(("/orders", "/customers", "/reports", "/projections")):
            answer = await shown.post(path.format(order_id="42", customer_id="alice"))
            problem(answer, 405, "method-not-allowed")
            assert lag_in(answer) < AN_AGE, path


@pytest.mark.promise("lag", "Every answer of every route, errors included, says how stale it is")
async def test_a_defect_of_the_service_is_answered_with_the_lag(
    shown: httpx.AsyncClient, redis: Redis, recorder: Recorder
) -> None:
    await recorder.record_raw("43", "OrderTeleported", 1, "{}")
    answer = await shown.get(f"/orders/43?known_at={quote(datetime.now(UTC).isoformat())}")
    problem(answer, 500, "unknown-event-type")
    assert lag_in(answer) < AN_AGE
    await redis.hset("{orders.0}:meta", "log_id", "no id")
    answer = await shown.get("/orders/42")
    problem(answer, 500, "internal-error")
    assert lag_in(answer) < AN_AGE


async def test_health_metrics_and_documentation_do_not_carry_the_lag(shown: httpx.AsyncClient) -> None:
    for path in ("/livez", "/readyz", "/metrics", "/docs", "/openapi.json", "/docs/swagger/nothing"):
        for method in ("GET", "POST"):
            answer = await shown.request(method, path)
            assert "projection-lag" not in answer.headers, (method, path)


@pytest.mark.promise("lag", "Every answer of every route, errors included, says how stale it is")
@pytest.mark.usefixtures("shown")
async def test_the_first_answer_of_a_service_carries_the_lag(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(projection_lag, "FIRST_POLL_SECONDS", 10.0)
    for path in ("/orders/42", "/orders/42/history", REVENUE, "/projections"):
        async with running_query_service(settings) as queries:
            assert lag_in(await queries.get(path)) < AN_AGE


@pytest.mark.promise("lag", "The lag of a missing read model is the age of all that it does not show")
async def test_the_lag_of_a_missing_read_model_is_the_age_of_all_that_it_does_not_show(
    queries_alone: httpx.AsyncClient, recorder: Recorder, connection: Connection
) -> None:
    await recorder.record("42", placed())
    await make_older(connection, 60)
    for path in ("/orders/42", "/orders", REVENUE, "/projections"):

        async def behind(path: str = path) -> bool:
            return lag_in(await queries_alone.get(path)) >= AN_AGE

        await eventually(behind)
    for path in ("/orders/42", "/orders", REVENUE):
        problem(await queries_alone.get(path), 503, "projection-rebuilding")
    assert lag_in(await queries_alone.get("/orders/42/history")) < AN_AGE


@pytest.mark.promise("lag", "`Projection-Lag` is `unknown` until first measured")
async def test_the_lag_is_unknown_until_first_measured(settings: Settings) -> None:
    (nobody,) = free_ports(1)
    nowhere = {
        "database_url": f"postgresql://x:y@127.0.0.1:{nobody}/x",
        "redis_url": f"redis://127.0.0.1:{nobody}/0",
    }
    async with running_query_service(settings, **nowhere) as queries:
        for path in (*FROM_ORDERS, *from_log(), *STREAMS, REVENUE, "/projections"):
            answer = await queries.get(path)
            problem(answer, 503, "read-model-unavailable" if path in (*FROM_ORDERS, REVENUE) else "log-unavailable")
            assert said(answer) == "unknown", path
        for path, status in (("/orders?limit=0", 422), ("/nowhere", 404)):
            answer = await queries.get(path)
            assert (answer.status_code, said(answer)) == (status, "unknown")


@pytest.mark.promise("lag", "An answer from a replica is as stale as the replica")
@pytest.mark.usefixtures("shown")
async def test_an_answer_from_a_replica_is_as_stale_as_the_replica(
    settings: Settings, connection: Connection, postgres: EmbeddedPostgres
) -> None:
    await make_older(connection, 60)
    async with fresh_database(postgres.url) as replica_url:
        replica = await asyncpg.connect(replica_url)
        await replica.execute("update log_head set log_id = $1", (await read_head(connection)).log_id)
        await replica.close()
        async with running_query_service(
            settings, history_database_url=url_of(replica_url, "orders_auditor")
        ) as queries:
            for path in (*from_log(), STREAMS[0]):
                answer = await queries.get(path)
                assert answer.status_code == (200 if path == "/events" else 404), path
                assert lag_in(answer) >= AN_AGE, path
            async with following(queries, STREAMS[1]) as source:
                assert int(source.headers["projection-lag"]) >= AN_AGE
            assert lag_in(await queries.get("/orders/42")) < AN_AGE


def test_every_answer_of_every_route_is_documented_to_carry_the_lag() -> None:
    document = read_document("query")
    assert document["components"]["headers"]["Projection-Lag"]["required"]
    for path, methods in document["paths"].items():
        for operation in methods.values():
            for status, answer in operation["responses"].items():
                says_it = "Projection-Lag" in answer.get("headers", {})
                assert says_it != ("operations" in operation["tags"]), (path, status)
