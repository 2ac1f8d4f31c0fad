"""The network between our processes and their servers: cut, refused, and half-open in either direction.

A half-open connection is the worst: it takes what it is given and nobody says that it is gone. Every request is still
answered in bounded time and honestly, and when the network is back everything goes on without a restart.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import httpx
import pytest

from tests.faults.proxy import Wire
from tests.faults.shop import Servers, Shop, at_port, codes, port_of, until_more
from tests.promises import Promise

Fault = Callable[[Wire], Awaitable[None]]

LONGEST_SECONDS = 12.0  # for any answer, whatever is gone
RECOVERY_SECONDS = 30.0


async def refused(wire: Wire) -> None:
    await wire.refuse()


async def requests_lost(wire: Wire) -> None:
    wire.lose(requests=True, answers=False)


async def answers_lost(wire: Wire) -> None:
    wire.lose(requests=False, answers=True)


FAULTS: list[Fault] = [refused, requests_lost, answers_lost]


@pytest.fixture
async def to_postgres(servers: Servers) -> AsyncIterator[Wire]:
    async with Wire(port_of(servers.database_url)) as wire:
        yield wire


@pytest.fixture
async def to_redis(servers: Servers) -> AsyncIterator[Wire]:
    async with Wire(port_of(servers.redis_url)) as wire:
        yield wire


@pytest.fixture
async def shop(tmp_path: Path, servers: Servers, to_postgres: Wire, to_redis: Wire) -> AsyncIterator[Shop]:
    through = Servers(at_port(servers.database_url, to_postgres.port), at_port(servers.redis_url, to_redis.port))
    shop = Shop(tmp_path, servers, through)
    await shop.start()
    yield shop
    shop.close()


async def ask(shop: Shop, order_id: str, number: int) -> tuple[list[httpx.Response], list[httpx.Response]]:
    """One question of each kind, all at once: the answers of the command service, those of the query service."""
    path, key = f"/orders/{order_id}", {"Idempotency-Key": f"probe-{number}"}
    commands = httpx.AsyncClient(base_url=shop.command.url, timeout=LONGEST_SECONDS)
    queries = httpx.AsyncClient(base_url=shop.query.url, timeout=LONGEST_SECONDS)
    async with commands, queries:
        answers = await asyncio.gather(
            commands.post(f"{path}/delivery", json={}),
            commands.post(f"{path}/delivery", json={}, headers=key),
            commands.get("/readyz"),
            queries.get(path),
            queries.get("/orders"),
            queries.get(f"{path}/history"),
            queries.get("/projections"),
            queries.get("/readyz"),
        )
    for answer in answers:
        assert answer.status_code != 503 or int(answer.headers["retry-after"]) >= 1
    return answers[:3], answers[3:]


async def recovered(shop: Shop, promises: list[Promise]) -> None:
    await asyncio.gather(
        until_more(promises, seconds=RECOVERY_SECONDS),
        *(process.until_ready(RECOVERY_SECONDS) for process in (shop.command, shop.projector, shop.query)),
    )


@pytest.mark.parametrize("fault", FAULTS)
async def test_postgresql_out_of_reach_is_said_in_time_and_recovered_from_without_a_restart(
    fault: Fault, shop: Shop, to_postgres: Wire
) -> None:
    customers = shop.customers()
    async with customers.ordering(2):
        await until_more(customers.promises)
        known = customers.promises[0]["aggregate_id"]
        await shop.assert_has_reached(customers.promises[0])
        await fault(to_postgres)
        for number in range(3):
            commands, queries = await ask(shop, known, number)
            assert codes(commands) <= {(503, "log-unavailable"), (503, "overloaded"), (503, "not-ready")}
            *from_redis, history, lag, _ = queries
            assert codes(from_redis) == {(200, "")}, "queries go on from Redis"
            assert codes([history, lag]) == {(503, "log-unavailable")}
        await to_postgres.heal()
        await recovered(shop, customers.promises)
    assert customers.asked_again > 0
    await shop.assert_all_is_well(customers.promises)


@pytest.mark.parametrize("fault", FAULTS)
async def test_redis_out_of_reach_is_said_in_time_and_recovered_from_without_a_restart(
    fault: Fault, shop: Shop, to_redis: Wire
) -> None:
    customers = shop.customers()
    async with customers.ordering(2):
        await until_more(customers.promises)
        known = customers.promises[0]["aggregate_id"]
        await fault(to_redis)
        for number in range(3):
            commands, queries = await ask(shop, known, number)
            assert 503 not in {answer.status_code for answer in commands}, "commands do not depend on Redis"
            *from_redis, history, lag, ready = queries
            assert codes([*from_redis, lag]) == {(503, "read-model-unavailable")}
            assert history.status_code == 200, "history is read from the log"
            assert codes([ready]) == {(503, "not-ready")}
        await to_redis.heal()
        await recovered(shop, customers.promises)
    assert customers.asked_again == 0
    await shop.assert_all_is_well(customers.promises)


async def test_connections_that_are_reset_again_and_again_lose_and_double_nothing(
    shop: Shop, to_postgres: Wire, to_redis: Wire
) -> None:
    customers = shop.customers()
    async with customers.ordering(4):
        for _ in range(20):
            await until_more(customers.promises, 10)
            to_postgres.cut()
            to_redis.cut()
        await recovered(shop, customers.promises)
    await shop.assert_all_is_well(customers.promises)
