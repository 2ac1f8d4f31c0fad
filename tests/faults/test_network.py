"""The network between our processes and their servers: cut, refused, and half-open in either direction, or in both.

A half-open connection is the worst: it accepts bytes, and no answer and no error comes. Every request is still
answered in bounded time and honestly, and when the network is back everything goes on without a restart.

Each process has a proxy of its own to each server. Those broken together are of pairs that do not hide each other: what
each does shows in other answers.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests.acknowledgements import Acknowledgement
from tests.faults.proxy import FaultProxy
from tests.faults.shop import Process, Servers, Shop, at_port, codes, port_of, until_more
from tests.running import eventually

Fault = Callable[[FaultProxy], Awaitable[None]]

LONGEST_SECONDS = 12.0  # for any answer, whatever is gone
NOTICED_SECONDS = 20.0  # by a projector, and by the one that takes over from it
RECOVERY_SECONDS = 30.0


async def refused(proxy: FaultProxy) -> None:
    await proxy.refuse()


async def requests_lost(proxy: FaultProxy) -> None:
    proxy.lose(requests=True, answers=False)


async def answers_lost(proxy: FaultProxy) -> None:
    proxy.lose(requests=False, answers=True)


async def both_lost(proxy: FaultProxy) -> None:
    proxy.lose(requests=True, answers=True)


FAULTS: list[Fault] = [refused, requests_lost, answers_lost, both_lost]


class Proxies(NamedTuple):
    """What each kind of process has to PostgreSQL, and what those have to Redis that use it."""

    command_postgres: FaultProxy
    query_postgres: FaultProxy
    projector_postgres: FaultProxy
    query_redis: FaultProxy
    projector_redis: FaultProxy


@pytest.fixture
async def proxies(servers: Servers) -> AsyncIterator[Proxies]:
    postgres, redis = port_of(servers.database_url), port_of(servers.redis_url)
    async with AsyncExitStack() as stack:
        targets = [postgres, postgres, postgres, redis, redis]
        yield Proxies(*[await stack.enter_async_context(FaultProxy(target)) for target in targets])


@pytest.fixture
async def shop(tmp_path: Path, servers: Servers, proxies: Proxies) -> AsyncIterator[Shop]:
    def through(postgres: FaultProxy, redis: FaultProxy | None = None) -> Servers:
        return Servers(
            at_port(servers.database_url, postgres.port),
            servers.redis_url if redis is None else at_port(servers.redis_url, redis.port),
        )

    shop = Shop(
        tmp_path,
        servers,
        {
            "command": through(proxies.command_postgres),
            "query": through(proxies.query_postgres, proxies.query_redis),
            "projector": through(proxies.projector_postgres, proxies.projector_redis),
        },
    )
    await shop.start()
    yield shop
    shop.close()


class Answers(NamedTuple):
    """To one question of each kind, all asked at once."""

    commands: list[httpx.Response]  # the last is of /readyz
    from_redis: list[httpx.Response]
    from_log: list[httpx.Response]  # history, an earlier state, live updates
    report: httpx.Response
    lag: httpx.Response
    query_ready: httpx.Response
    projector_ready: httpx.Response


async def ask(shop: Shop, order_id: str, number: int) -> Answers:
    """About an order that was shipped."""
    again = {"tracking_number": "again"}
    path, key = f"/orders/{order_id}", {"Idempotency-Key": f"probe-{number}"}
    today = datetime.now(UTC).date()
    async with AsyncExitStack() as stack:
        commands, queries, projector = [
            await stack.enter_async_context(httpx.AsyncClient(base_url=process.url, timeout=LONGEST_SECONDS))
            for process in (shop.command, shop.query, shop.projector)
        ]
        answers = await asyncio.gather(
            commands.post(f"{path}/shipment", json=again),
            commands.post(f"{path}/shipment", json=again, headers=key),
            commands.get("/readyz"),
            queries.get(path),
            queries.get("/orders"),
            queries.get(f"{path}/history"),
            queries.get(path, params={"as_of": datetime.now(UTC).isoformat()}),
            begin_to_follow(queries, f"{path}/events"),
            queries.get(f"/reports/revenue?from={today}&to={today}"),
            queries.get("/projections"),
            queries.get("/readyz"),
            projector.get("/readyz"),
        )
    for answer in answers:
        assert answer.status_code != 503 or int(answer.headers["retry-after"]) >= 1
    return Answers(answers[:3], answers[3:5], answers[5:8], *answers[8:])


async def begin_to_follow(queries: httpx.AsyncClient, path: str) -> httpx.Response:
    """The answer with its first bytes, or with its reason."""
    async with queries.stream("GET", path) as answer:
        if answer.status_code == 200:
            assert await anext(answer.aiter_bytes())
            return httpx.Response(200, json={})
        await answer.aread()
        return answer


async def recovered(shop: Shop, acknowledged: list[Acknowledgement]) -> None:
    await asyncio.gather(
        until_more(acknowledged, seconds=RECOVERY_SECONDS),
        *(process.until_ready(RECOVERY_SECONDS) for process in (shop.command, shop.projector, shop.query)),
    )
    await shop.assert_has_reached(acknowledged[-1])


@pytest.mark.promise("failures", "A process that is cut off from a server disturbs no other process")
@pytest.mark.promise("failures", "Another projector takes over from one that is cut off")
@pytest.mark.promise(
    "failures", "With any server cut off or half-open, answers take bounded time and recovery needs no restart"
)
@pytest.mark.parametrize("fault", FAULTS)
async def test_any_pair_out_of_reach_is_said_in_time_and_recovered_from_without_a_restart(
    fault: Fault, shop: Shop, proxies: Proxies
) -> None:
    customers = shop.customers()
    async with customers.ordering(2):
        known = await _order_without_texts(customers.acknowledged)
        await shop.assert_has_reached(customers.acknowledged[0])
        another = shop.process("projector")
        await _break_query_postgres_and_projector_postgres(fault, shop, proxies, customers.acknowledged, known, another)
        await recovered(shop, customers.acknowledged)
        assert customers.asked_again == 0, "commands depend on no other's connections"
        await asyncio.to_thread(another.stop)
        await recovered(shop, customers.acknowledged)
        await _break_command_postgres_query_redis_and_projector_redis(fault, shop, proxies, known)
        await recovered(shop, customers.acknowledged)
    assert customers.asked_again > 0
    await shop.assert_all_is_well(customers.acknowledged)


async def _order_without_texts(acknowledged: list[Acknowledgement]) -> str:
    """One that was shipped: the reason of a cancelled one is sealed with a key that is in PostgreSQL."""

    shipped: list[str] = []

    def is_shipped() -> bool:
        shipped.extend(one["aggregate_id"] for one in acknowledged if one["version"] == 3)
        return bool(shipped)

    await eventually(is_shipped)
    return shipped[0]


async def _break_query_postgres_and_projector_postgres(
    fault: Fault, shop: Shop, proxies: Proxies, acknowledged: list[Acknowledgement], known: str, another: Process
) -> None:
    """Another projector takes over from the one that is cut off."""
    broken = (proxies.query_postgres, proxies.projector_postgres)
    for proxy in broken:
        await fault(proxy)
    await shop.start(another)
    newest = int(acknowledged[-1]["position"])
    for number in range(2, 4):
        answers = await ask(shop, known, number)
        assert 503 not in {answer.status_code for answer in answers.commands}
        assert codes(answers.from_redis) == {(200, "")}, "queries go on from Redis"
        assert codes([*answers.from_log, answers.lag]) == {(503, "log-unavailable")}
        assert codes([answers.report]) == {(503, "read-model-unavailable")}

    async def another_has_taken_over() -> bool:
        return await shop.position() >= newest

    await eventually(another_has_taken_over, NOTICED_SECONDS)
    await eventually(lambda: _is_not_ready(shop), NOTICED_SECONDS)
    await shop.assert_has_reached(acknowledged[-1])
    for proxy in broken:
        await proxy.heal()


async def _break_command_postgres_query_redis_and_projector_redis(
    fault: Fault, shop: Shop, proxies: Proxies, known: str
) -> None:
    broken = (proxies.command_postgres, proxies.query_redis, proxies.projector_redis)
    for proxy in broken:
        await fault(proxy)
    await eventually(lambda: _is_not_remembered(shop, known))
    for number in range(2):
        answers = await ask(shop, known, number)
        assert codes(answers.commands) <= {(503, "log-unavailable"), (503, "overloaded"), (503, "not-ready")}
        assert codes([*answers.from_redis, answers.lag]) == {(503, "read-model-unavailable")}
        assert codes([*answers.from_log, answers.report]) == {(200, "")}, "what is in PostgreSQL is read from there"
        assert codes([answers.query_ready]) == {(503, "not-ready")}
    await eventually(lambda: _is_not_ready(shop), NOTICED_SECONDS)
    for proxy in broken:
        await proxy.heal()


async def _is_not_remembered(shop: Shop, known: str) -> bool:
    """For a moment after its last message, Redis is trusted to report changes."""
    async with httpx.AsyncClient(timeout=LONGEST_SECONDS) as client:
        answer = await client.get(f"{shop.query.url}/orders/{known}")
    return answer.status_code == 503


async def _is_not_ready(shop: Shop) -> bool:
    async with httpx.AsyncClient(timeout=LONGEST_SECONDS) as client:
        answer = await client.get(f"{shop.projector.url}/readyz")
    return answer.status_code == 503


@pytest.mark.promise("failures", "Connections that are reset again and again lose and double nothing")
async def test_connections_that_are_reset_again_and_again_lose_and_double_nothing(shop: Shop, proxies: Proxies) -> None:
    customers = shop.customers()
    async with customers.ordering(4):
        for _ in range(20):
            await until_more(customers.acknowledged, 10)
            for proxy in proxies:
                proxy.cut()
        await recovered(shop, customers.acknowledged)
    await shop.assert_all_is_well(customers.acknowledged)
