"""What all clients share is not used up by one of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from time import monotonic

import httpx
import pytest
from redis.asyncio import Redis

from shared.eventstore.log import read_head
from shared.settings import Settings
from tests.given_when_then import problem
from tests.hostile.clients import client_at
from tests.orders import placed
from tests.query_service.event_source import following
from tests.query_service.redis_read_model import checkpoint
from tests.recording import Recorder
from tests.running import eventually, running_query_service

FORGED = 200


@pytest.fixture
async def queries(settings: Settings, recorder: Recorder, redis: Redis) -> AsyncIterator[httpx.AsyncClient]:
    """A query service whose read model shows the first of two events; no projector runs."""
    await recorder.record("42", placed())
    head = await read_head(recorder.connection)
    await redis.hset("{orders.0}:meta", mapping=checkpoint(head.position, head.log_id))
    await recorder.record("43", placed())
    limits = {"token_waits_per_client": 3, "sse_streams_per_client": 3}
    async with running_query_service(settings, **limits) as queries:
        yield queries


async def token_of_last_event(recorder: Recorder) -> dict[str, str]:
    head = await read_head(recorder.connection)
    return {"Consistency-Token": head.token.encode(), "Prefer": "wait=30"}


@pytest.mark.promise("queries", "One client's forged tokens and waits leave the waits of other clients as they are")
async def test_forged_tokens_do_not_keep_other_clients_from_waiting(
    queries: httpx.AsyncClient, recorder: Recorder, redis: Redis
) -> None:
    head = await read_head(recorder.connection)
    async with client_at("127.0.0.2", queries) as attacker, client_at("127.0.0.3", queries) as other:
        forged = {"Prefer": "wait=30", "Consistency-Token": f"{head.log_id.hex}-{2**63 - 1}"}
        attack = [asyncio.create_task(attacker.get("/orders", headers=forged)) for _ in range(FORGED)]
        started = monotonic()
        waiting = asyncio.create_task(other.get("/orders", headers=await token_of_last_event(recorder)))
        codes = {answer.json()["code"] for answer in await asyncio.gather(*attack)}
        assert codes <= {"token-beyond-log", "client-limit-reached"}
        assert monotonic() - started < 20
        await redis.hset("{orders.0}:meta", "position", str(head.position))
        assert (await waiting).status_code == 200


@pytest.mark.promise("queries", "One client's forged tokens and waits leave the waits of other clients as they are")
@pytest.mark.bound("query", "queries of one client that wait for a token")
async def test_a_client_has_so_many_queries_waiting_and_no_more(
    queries: httpx.AsyncClient, recorder: Recorder, redis: Redis
) -> None:
    headers = await token_of_last_event(recorder)
    async with client_at("127.0.0.2", queries) as one, client_at("127.0.0.3", queries) as other:
        waiting = [asyncio.create_task(one.get("/orders", headers=headers)) for _ in range(5)]
        await eventually(lambda: sum(task.done() for task in waiting) == 2)
        for task in waiting:
            if task.done():
                refused = problem(task.result(), 429, "client-limit-reached")
                assert refused["most"] == 3
                assert int(task.result().headers["retry-after"]) >= 1
        others = asyncio.create_task(other.get("/orders", headers=headers))
        head = await read_head(recorder.connection)
        await redis.hset("{orders.0}:meta", "position", str(head.position))
        answers = await asyncio.gather(*waiting, others)
        assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 200, 429, 429]


@pytest.mark.promise("live-updates", "One client's event streams leave those of other clients as they are")
@pytest.mark.bound("query", "open event streams; of one client")
async def test_a_client_has_so_many_event_streams_and_no_more(queries: httpx.AsyncClient) -> None:
    path = "/orders/42/events"
    async with client_at("127.0.0.2", queries) as one, client_at("127.0.0.3", queries) as other:
        async with AsyncExitStack() as stack:
            for _ in range(3):
                await stack.enter_async_context(following(one, path))
            for refused in (path, "/customers/alice/orders/events"):
                problem(await one.get(refused), 429, "client-limit-reached")
            async with following(other, path) as source:
                await source.until_it_began()
        await eventually(lambda: _is_followed(one, path))


async def _is_followed(client: httpx.AsyncClient, path: str) -> bool:
    async with client.stream("GET", path) as answer:
        return answer.status_code == 200


@pytest.mark.promise("live-updates", "A browser that is refused for now is told in the stream when to come back")
async def test_a_browser_that_is_refused_for_now_gets_a_stream_that_says_when_to_come_back(
    queries: httpx.AsyncClient,
) -> None:
    path = "/orders/42/events"
    async with AsyncExitStack() as stack:
        for _ in range(3):
            await stack.enter_async_context(following(queries, path))
        async with following(queries, path, accept="text/event-stream") as source:
            await eventually(lambda: source.ended)
        assert [problem["code"] for problem in source.problems] == ["client-limit-reached"]
        assert source.messages == []
        assert source.last_id == "", "the browser keeps the id that it has"
        assert source.retry_ms is not None
        assert 5_000 <= source.retry_ms <= 7_500
        assert source.headers["content-type"].startswith("text/event-stream")
        # What no later attempt can mend ends the attempts of a browser.
        for status, bad in ((404, "/orders/nowhere/events"), (400, f"{path}?after={2**63 - 1}")):
            async with client_at("127.0.0.3", queries) as other:
                answer = await other.get(bad, headers={"Accept": "text/event-stream"})
                assert answer.status_code == status
