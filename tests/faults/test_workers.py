"""Projectors that come, go, die and pause: the others take their partitions over within seconds."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import asyncpg
import httpx
import pytest

from tests.faults.operator import projections
from tests.faults.shop import Process, Shop, until_more
from tests.faults.test_cluster import assert_lists_are_complete
from tests.running import eventually

PARTITIONS = {"orders": 3, "revenue_by_day": 2}
UNDIVIDED = {"accounts": 1, "customers": 1, "stock": 1, "processes": 1, "products": 1, "categories": 1}
ALL = sum({**PARTITIONS, **UNDIVIDED}.values())
SETTING = ",".join(f"{name}={count}" for name, count in PARTITIONS.items())
QUICKLY = 10.0  # a second or two, where nothing else presses on the machine
AFTER_A_PAUSE = 20.0  # the server ends a session that asked nothing for ten seconds

_HOLDERS = """
select pid from pg_locks where locktype = 'advisory' and mode = 'ExclusiveLock' and granted
and database = (select oid from pg_database where datname = current_database())
and (classid::bigint << 32) | objid::bigint
    = any(select hashtextextended('projector of ' || name, 0) from unnest($1::text[]) name)
"""
NAMES = [
    f"{{{name}.{partition}}}:" for name, count in {**PARTITIONS, **UNDIVIDED}.items() for partition in range(count)
]


@pytest.fixture
def projectors(shop: Shop) -> list[Process]:
    return [shop.process("projector", PROJECTOR_PARTITIONS=SETTING) for _ in range(3)]


def shared_by(connection: asyncpg.Connection[asyncpg.Record], projectors: int) -> Callable[[], Awaitable[bool]]:
    """So many projectors hold all partitions, each as many as the others, or one more."""
    each, more = divmod(ALL, projectors)
    expected = [each] * (projectors - more) + [each + 1] * more

    async def shared() -> bool:
        held = Counter(row["pid"] for row in await connection.fetch(_HOLDERS, NAMES))
        return sorted(held.values()) == expected

    return shared


@pytest.mark.promise(
    "projectors", "Projectors share partitions as they join, leave, die and pause; they skip and double nothing"
)
async def test_projectors_share_partitions_as_they_come_go_die_and_pause(
    shop: Shop, projectors: list[Process], connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    first, second, third = projectors
    await shop.start(shop.command, first, shop.query)
    customers = shop.customers()
    async with customers.ordering(2):
        await eventually(shared_by(connection, 1))
        await shop.start(second)
        await eventually(shared_by(connection, 2), QUICKLY)
        await shop.start(third)
        await eventually(shared_by(connection, 3), QUICKLY)
        await until_more(customers.acknowledged, 20)

        third.stop()
        await eventually(shared_by(connection, 2), QUICKLY)
        second.kill()
        await eventually(shared_by(connection, 1), QUICKLY)
        await until_more(customers.acknowledged, 20)

        await shop.start(third)
        await eventually(shared_by(connection, 2), QUICKLY)
        third.pause()
        await eventually(shared_by(connection, 1), AFTER_A_PAUSE)
        third.resume()
        await eventually(shared_by(connection, 2), QUICKLY)
        await until_more(customers.acknowledged, 20)
    await shop.assert_all_is_well(customers.acknowledged)


@pytest.mark.promise(
    "rebuilds", "A new number of partitions takes effect by a rebuild; meanwhile queries are ready and correct"
)
async def test_another_number_of_partitions_takes_effect_by_a_rebuild_while_queries_run(shop: Shop) -> None:
    await shop.start()
    customers = shop.customers()
    async with customers.ordering(2):
        newer = shop.process("projector", PROJECTOR_PARTITIONS=SETTING)
        await shop.start(newer)
        await until_more(customers.acknowledged, 20)
        assert await numbers_of_partitions(shop) == {"orders": 1, "revenue_by_day": 1}
        assert newer.log.read_text().count("orders projections rebuild") == len(PARTITIONS)
        async with always_ready(shop):
            for name in PARTITIONS:
                await projections(shop, "rebuild", name, PROJECTOR_PARTITIONS=SETTING)
                await until_more(customers.acknowledged, 20)
        assert await numbers_of_partitions(shop) == PARTITIONS
        await assert_lists_are_complete(shop, customers.acknowledged)
        assert "0 differences" in await projections(shop, "verify", "revenue_by_day")
        await projections(shop, "rollback", "orders")
        await until_more(customers.acknowledged, 20)
        assert await numbers_of_partitions(shop) == {**PARTITIONS, "orders": 1}
    await shop.assert_all_is_well(customers.acknowledged)


@asynccontextmanager
async def always_ready(shop: Shop) -> AsyncIterator[None]:
    """The query service says so all the time."""
    done = asyncio.Event()

    async def ask() -> None:
        async with httpx.AsyncClient(timeout=30) as client:
            while not done.is_set():
                answer = await client.get(f"{shop.query.url}/readyz")
                assert answer.status_code == 200, answer.text

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(ask())
        yield
        done.set()


async def numbers_of_partitions(shop: Shop) -> dict[str, int]:
    async with httpx.AsyncClient() as client:
        answer = (await client.get(f"{shop.query.url}/projections")).json()
    return {one["name"]: len(one["partitions"]) for one in answer["projections"] if one["name"] in PARTITIONS}


@pytest.mark.promise("projectors", "No partition moves while no projector joins or leaves")
async def test_nothing_moves_while_nobody_comes_or_goes(
    shop: Shop, projectors: list[Process], connection: asyncpg.Connection[asyncpg.Record]
) -> None:
    await shop.start(shop.command, *projectors, shop.query)
    await eventually(shared_by(connection, 3))
    epochs = await connection.fetchval("select last_value from projector_epochs")
    customers = shop.customers()
    async with customers.ordering(2):
        await until_more(customers.acknowledged, 400)
    await shop.assert_all_is_well(customers.acknowledged)

    assert await connection.fetchval("select last_value from projector_epochs") == epochs, "a lease was taken"
    assert await shared_by(connection, 3)()
