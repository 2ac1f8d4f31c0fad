"""`kill -9` of the projector at every step of a batch: before, between and after reading, folding and applying.

Into Redis and into PostgreSQL.
"""

from __future__ import annotations

import signal

import asyncpg
import pytest

from shared.events.order import OrderDelivered
from tests.faults.rigged import MOMENTS, POSTGRES, POSTGRES_MOMENTS
from tests.faults.shop import Shop
from tests.orders import MUG, new_order_id, paid, placed, shipped
from tests.recording import Recorder
from tests.running import eventually

BATCH = 10
EVENTS = 21
# How far the read model is when a projector that began with nothing dies at that moment of its second batch.
BEFORE_THE_FIRST_BATCH = {"before claiming", "after claiming", "while wiping", "after the reset"}
WHILE_THE_FIRST_IS_APPLIED = {"before reading", "after reading", "before folding", "after folding"}
LOADING = {"before loading", "after loading"}


@pytest.fixture
def orders() -> list[str]:
    return [new_order_id() for _ in range(7)]


@pytest.fixture
async def recorder(connection: asyncpg.Connection[asyncpg.Record], orders: list[str]) -> Recorder:
    """Of a log whose batches share orders, so that each batch goes on with documents of the one before."""
    recorder = Recorder(connection)
    for event in (placed(MUG), paid(900), shipped()):
        for order_id in orders:
            await recorder.record(order_id, event)
    return recorder


@pytest.mark.parametrize("moment", MOMENTS)
async def test_kill_9_at_every_step_of_a_batch_skips_and_doubles_nothing(
    moment: str, shop: Shop, recorder: Recorder, orders: list[str]
) -> None:
    if moment in LOADING:
        await _begin(shop, recorder, orders)
    await _kill(moment, shop)
    assert await shop.position() in _expected_after(moment)
    await _assert_it_goes_on(shop, recorder)


@pytest.mark.parametrize("moment", POSTGRES_MOMENTS)
async def test_kill_9_at_every_step_of_a_batch_into_postgresql_skips_and_doubles_nothing(
    moment: str, shop: Shop, recorder: Recorder, orders: list[str]
) -> None:
    if moment.removeprefix(POSTGRES) in LOADING:
        await _begin(shop, recorder, orders)
    await _kill(moment, shop)
    await eventually(lambda: _nobody_writes(recorder.connection))
    position = await recorder.connection.fetchval(
        "select position from read_models where projection = 'revenue_by_day' and generation = 1"
    )
    assert (position or 0) in _expected_after(moment.removeprefix(POSTGRES))
    await _assert_it_goes_on(shop, recorder)


async def _begin(shop: Shop, recorder: Recorder, orders: list[str]) -> None:
    """Another projector has applied what there is, and now orders of its go on."""
    await shop.start(shop.projector, shop.query)
    await shop.assert_read_models_equal_the_log()
    shop.projector.stop()
    for order_id in orders:
        await recorder.record(order_id, OrderDelivered())


async def _kill(moment: str, shop: Shop) -> None:
    doomed = shop.process("projector", f"kill:{moment}", PROJECTOR_BATCH_SIZE=str(BATCH))
    doomed.spawn()
    assert await doomed.until_it_ends() == -signal.SIGKILL, doomed.log.read_text()


def _expected_after(moment: str) -> set[int]:
    """Where the read model may stand then: what was sent is applied as a whole, or not at all."""
    if moment in BEFORE_THE_FIRST_BATCH:
        return {0}
    if moment in WHILE_THE_FIRST_IS_APPLIED:
        return {0, BATCH}
    if moment in LOADING:
        return {EVENTS}
    return {2 * BATCH} if moment == "after applying" else {BATCH}


async def _nobody_writes(connection: asyncpg.Connection[asyncpg.Record]) -> bool:
    """The server has noticed that the projector is gone."""
    others = "select from pg_stat_activity where usename = 'orders_projector' and datname = current_database()"
    return not await connection.fetchval(f"select exists ({others})")


async def _assert_it_goes_on(shop: Shop, recorder: Recorder) -> None:
    await shop.start(shop.projector)
    await recorder.record(new_order_id(), placed())
    await shop.assert_read_models_equal_the_log()
