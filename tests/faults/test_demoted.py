"""A server is demoted, and its address leads to another one. Sessions with the old server stay open: nothing but its
answers says so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from cli.stack.embedded_postgres import EmbeddedPostgres
from cli.stack.embedded_valkey import EmbeddedValkey
from shared.postgres import SESSION_SECONDS
from tests.acknowledgements import Acknowledgement
from tests.faults.demoted import make_read_only, promoted_copy, promoted_replica
from tests.faults.proxy import FaultProxy
from tests.faults.shop import Process, Servers, Shop, at_port, codes, port_of, until_more
from tests.orders import order_body
from tests.query_service.event_source import following
from tests.running import eventually

RECOVERY_SECONDS = SESSION_SECONDS + 20


class Proxies(NamedTuple):
    postgres: FaultProxy
    redis: FaultProxy


@pytest.fixture
def servers(mortal_postgres: EmbeddedPostgres, mortal_valkey: EmbeddedValkey) -> Servers:
    return Servers(mortal_postgres.url, mortal_valkey.url)


@pytest.fixture
async def proxies(servers: Servers) -> AsyncIterator[Proxies]:
    targets = [port_of(servers.database_url), port_of(servers.redis_url)]
    async with AsyncExitStack() as stack:
        yield Proxies(*[await stack.enter_async_context(FaultProxy(target)) for target in targets])


@pytest.fixture
async def shop(tmp_path: Path, servers: Servers, proxies: Proxies) -> AsyncIterator[Shop]:
    through = Servers(
        at_port(servers.database_url, proxies.postgres.port), at_port(servers.redis_url, proxies.redis.port)
    )
    shop = Shop(tmp_path, servers, dict.fromkeys(("command", "query", "projector"), through))
    await shop.start()
    yield shop
    shop.close()


async def is_ready(process: Process) -> bool:
    return await asyncio.to_thread(process.ready)


async def from_the_log(queries: httpx.AsyncClient, acknowledged: Acknowledgement) -> set[tuple[int, str]]:
    """How its history, an earlier state of it, and the report of the day are answered, with its token."""
    path, now = f"/orders/{acknowledged['aggregate_id']}", datetime.now(UTC)
    token = {"Consistency-Token": acknowledged["consistency_token"], "Prefer": "wait=1"}
    answers = await asyncio.gather(
        queries.get(f"{path}/history", headers=token),
        queries.get(path, params={"as_of": now.isoformat()}, headers=token),
        queries.get(f"/reports/revenue?from={now.date()}&to={now.date()}", headers=token),
    )
    return codes(answers)


async def none_is_ready(*processes: Process) -> bool:
    return not any([await is_ready(process) for process in processes])


@pytest.mark.promise("failures", "Every process leaves a PostgreSQL that was demoted, without a restart")
async def test_every_process_leaves_a_postgresql_that_was_demoted(
    shop: Shop, proxies: Proxies, mortal_postgres: EmbeddedPostgres, tmp_path: Path
) -> None:
    customers = shop.customers()
    async with (
        AsyncExitStack() as stack,
        httpx.AsyncClient(base_url=shop.command.url, timeout=30) as commands,
        httpx.AsyncClient(base_url=shop.query.url, timeout=30) as queries,
    ):
        source = await stack.enter_async_context(following(queries, "/customers/c0/orders/events"))
        async with customers.ordering(2):
            await until_more(customers.acknowledged)
            assert await from_the_log(queries, customers.acknowledged[0]) == {(200, "")}

            await make_read_only(mortal_postgres)
            answers = [await commands.post("/orders", json=order_body()) for _ in range(5)]
            assert codes(answers) == {(503, "log-unavailable")}
            await eventually(lambda: none_is_ready(shop.command, shop.projector))
            promoted = await stack.enter_async_context(promoted_copy(mortal_postgres, tmp_path / "promoted"))
            proxies.postgres.lead_to(promoted.port)
            shop.servers.database_url = promoted.url

            await until_more(customers.acknowledged)
            new = customers.acknowledged[-1]
            for process in (shop.command, shop.projector, shop.query):
                await process.until_ready()

            async def are_read() -> bool:
                return await from_the_log(queries, new) == {(200, "")}

            await eventually(are_read, RECOVERY_SECONDS)
            await eventually(lambda: int(source.last_id) >= new["position"], RECOVERY_SECONDS)
        await shop.assert_all_is_well(customers.acknowledged)


@pytest.mark.promise("failures", "Every process leaves a Redis that was demoted, without a restart")
async def test_every_process_leaves_a_redis_that_was_demoted(
    shop: Shop, proxies: Proxies, mortal_valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    customers = shop.customers()
    async with AsyncExitStack() as stack:
        async with customers.ordering(2):
            await until_more(customers.acknowledged)
            await shop.assert_has_reached(customers.acknowledged[-1])
            promoted = await stack.enter_async_context(promoted_replica(mortal_valkey, tmp_path / "promoted"))
            await eventually(lambda: none_is_ready(shop.projector))
            proxies.redis.lead_to(promoted.port)
            shop.servers.redis_url = promoted.url

            await until_more(customers.acknowledged)
            await shop.projector.until_ready()
            await shop.query.until_ready(RECOVERY_SECONDS)
            await shop.assert_has_reached(customers.acknowledged[-1])
        assert customers.asked_again == 0, "commands do not depend on Redis"
        await shop.assert_all_is_well(customers.acknowledged)
