"""Projectors that are stopped in the middle of a batch and come back when another has long taken over."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from tests.catalogue import of_the_log
from tests.faults.proxy import FaultProxy
from tests.faults.shop import Servers, Shop, at_port, port_of, projects_only, until_more
from tests.running import eventually

# One of the orders and one of the revenue, at the same time: another takes over after ten seconds. That of the revenue
# stops within a statement: asyncpg prepares it when it is first used, and the server waits for its execution within a
# transaction.
MOMENTS = [
    ("projection.applying:orders=1*off->1*pause", b"update read_models set"),
    ("projection.wiping:orders=1*pause", b"events_after("),
]


@pytest.fixture
async def proxy(servers: Servers) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(port_of(servers.database_url)) as proxy:
        yield proxy


@pytest.mark.promise("projectors", "A paused projector changes nothing when it resumes after another took over")
@pytest.mark.parametrize(("failpoint", "statement"), MOMENTS, ids=["applying", "wiping and reading"])
async def test_a_projector_paused_in_a_batch_changes_nothing_when_it_comes_back(
    failpoint: str, statement: bytes, shop: Shop, proxy: FaultProxy
) -> None:
    await shop.start(shop.command)
    through = Servers(at_port(shop.servers.database_url, proxy.port), shop.servers.redis_url)
    paused = [
        shop.process("projector", FAILPOINTS=f"{projects_only('orders')};{failpoint}"),
        shop.process("projector", through=through, FAILPOINTS=projects_only("revenue_by_day")),
    ]
    proxy.before(statement, paused[1].pause)
    customers = shop.customers()
    async with customers.ordering(1):
        await until_more(customers.acknowledged, 20)
        for process in paused:
            process.spawn()
        for process in paused:
            await process.until_it_is_stopped()
        # Their leases end although their connections are as open as ever: the server ends a session that asks nothing.
        await shop.start(shop.projector, shop.query)
        left_at: int = customers.acknowledged[-1]["position"]

        async def the_other_has_gone_on() -> bool:
            return all(one["checkpoint"] >= left_at for one in await read_models(shop))

        await eventually(the_other_has_gone_on, seconds=40)
        for process in paused:
            process.resume()

        async def one_has_a_share_again() -> bool:
            return not {process.pid for process in paused}.isdisjoint(await workers(shop))

        await eventually(one_has_a_share_again, seconds=20)
        await until_more(customers.acknowledged, 20)
    await shop.assert_all_is_well(customers.acknowledged)


async def workers(shop: Shop) -> set[int]:
    """The processes that said last that they work on a partition."""
    names = {partition["projector"] for one in await read_models(shop) for partition in one["partitions"]}
    return {int(name.rpartition(":")[2]) for name in names if name is not None}


async def read_models(shop: Shop) -> list[dict[str, Any]]:
    async with httpx.AsyncClient() as client:
        return of_the_log(await client.get(f"{shop.query.url}/projections"))
