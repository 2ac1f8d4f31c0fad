"""`kill -9` of the projector at every step of a batch: before, between and after reading, folding and applying.

Into Redis and into PostgreSQL: at each moment two die, one of either. What they leave behind is looked at before
another goes on with it.
"""

from __future__ import annotations

import asyncio
import signal

import asyncpg
import httpx
import pytest
from redis.asyncio import Redis

from tests.acknowledgements import Acknowledgement
from tests.faults.shop import Process, Shop, projects_only
from tests.independent_folds import orders, revenue_by_day
from tests.orders import TOTAL, order_body
from tests.running import eventually

BATCH = 10
ORDERS = 7
# Failpoints that the projector passes in its first batch, and in each batch.
FIRST = ["claiming", "claimed", "wiping", "reset"]
EACH = ["reading", "read", "folded", "applying", "applied"]
# A document is loaded where it is not in memory yet, so by a projector that finds a store it has not written to.
LOADED = "loaded"
# Within the transaction in PostgreSQL that also removes lines which count no order any more. The second batch is the
# first that may leave such lines.
POSTGRES_ONLY = ["written", "finished"]
MOMENTS = [*FIRST, *EACH, LOADED, *POSTGRES_ONLY]
GROUPS = [MOMENTS[start : start + 4] for start in range(0, len(MOMENTS), 4)]


class Customer:
    def __init__(self, commands: httpx.AsyncClient) -> None:
        self.acknowledged: list[Acknowledgement] = []
        self.orders: list[str] = []
        self._commands = commands

    async def place(self) -> None:
        self.orders.append((await self._ask("", order_body()))["aggregate_id"])

    async def pay(self, order_id: str) -> None:
        await self._ask(f"/{order_id}/payment", {"payment_reference": f"pay-{order_id}", "amount": TOTAL})

    async def ship(self, order_id: str) -> None:
        await self._ask(f"/{order_id}/shipment", {"tracking_number": "track"})

    async def _ask(self, path: str, body: dict[str, object]) -> Acknowledgement:
        answer = await self._commands.post(f"/orders{path}", json=body)
        assert answer.is_success, answer.text
        self.acknowledged.append(answer.json())
        return self.acknowledged[-1]


@pytest.mark.promise(
    "read-models",
    "`kill -9` at any step of a batch leaves a fold of the log; the next projector skips and doubles nothing",
)
@pytest.mark.parametrize("moments", GROUPS, ids=" / ".join)
async def test_kill_9_at_every_step_of_a_batch_skips_and_doubles_nothing(
    moments: list[str], shop: Shop, connection: asyncpg.Connection[asyncpg.Record], redis: Redis
) -> None:
    await shop.start()
    async with httpx.AsyncClient(base_url=shop.command.url, timeout=30) as commands:
        customer = Customer(commands)
        # Batches share orders, so that each goes on with documents of the one before.
        for _ in range(ORDERS):
            await customer.place()
        for order_id in customer.orders:
            await customer.pay(order_id)
        for order_id in customer.orders:
            await customer.ship(order_id)
        await customer.place()
        for moment in moments:
            await shop.assert_read_models_equal_the_log()
            await asyncio.to_thread(shop.projector.stop)
            head = await connection.fetchval("select position from log_head")
            if moment == LOADED:
                await customer.pay(customer.orders[-1])
            else:
                await _forget_the_checkpoints(connection, redis)

            await _kill_two(moment, shop, connection)

            await _assert_what_is_left_is_a_fold(moment, shop, head)
            await customer.place()
            await shop.start(shop.projector)
    await shop.assert_all_is_well(customer.acknowledged)


async def _forget_the_checkpoints(connection: asyncpg.Connection[asyncpg.Record], redis: Redis) -> None:
    """The next projector begins with nothing, and has something to wipe."""
    await redis.delete("{orders.0}:meta")
    await connection.execute("update read_models set log_id = null")


async def _kill_two(moment: str, shop: Shop, connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """One of either store, where both have that moment."""
    names = ["revenue_by_day"] if moment in POSTGRES_ONLY else ["orders", "revenue_by_day"]
    kill = "1*off->kill" if moment in EACH else "kill"
    doomed = [
        shop.process(
            "projector",
            PROJECTOR_BATCH_SIZE=str(BATCH),
            FAILPOINTS=f"{projects_only(name)};projection.{moment}:{name}={kill}",
        )
        for name in names
    ]
    for process in doomed:
        process.spawn()
    for process in doomed:
        await _assert_it_is_killed(process)

    async def the_server_has_noticed() -> bool:
        others = "select from pg_stat_activity where usename = 'orders_projector' and datname = current_database()"
        return not await connection.fetchval(f"select exists ({others})")

    await eventually(the_server_has_noticed)


async def _assert_it_is_killed(process: Process) -> None:
    assert await process.until_it_ends() == -signal.SIGKILL, process.log.read_text()


async def _assert_what_is_left_is_a_fold(moment: str, shop: Shop, head: int) -> None:
    """Up to a position where it may be: what was sent is applied as a whole, or not at all."""
    database_url, redis_url = shop.servers.database_url, shop.servers.redis_url
    expected = _expected_after(moment, head)
    assert await revenue_by_day.assert_is_a_fold(database_url) in expected, moment
    if moment not in POSTGRES_ONLY:
        assert await orders.assert_is_a_fold(database_url, redis_url) in expected, moment


def _expected_after(moment: str, head: int) -> set[int]:
    """How far the read model is when a projector that began with nothing dies at that moment of its second batch."""
    match moment:
        case "claiming" | "claimed" | "wiping" | "reset":
            return {0}
        case "reading" | "read" | "folded":  # while the first batch is applied
            return {0, BATCH}
        case "applied":
            return {2 * BATCH}
        case "loaded":
            return {head}
        case _:
            return {BATCH}
