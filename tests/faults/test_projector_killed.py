"""`kill -9` of the projector at every step of a batch: before, between and after reading, folding and applying."""

from __future__ import annotations

import signal

import asyncpg
import pytest

from tests.faults.rigged import MOMENTS
from tests.faults.shop import Shop
from tests.orders import MUG, new_order_id, paid, placed, shipped
from tests.recording import Recorder

BATCH = 10
# How far the read model is when a projector that began with nothing dies at that moment of its second batch.
BEFORE_THE_FIRST_BATCH = {"before claiming", "after claiming", "while wiping", "after the reset"}


@pytest.fixture
async def recorder(connection: asyncpg.Connection[asyncpg.Record]) -> Recorder:
    """Of a log whose batches share orders, so that each batch has documents to load."""
    recorder = Recorder(connection)
    orders = [new_order_id() for _ in range(7)]
    for event in (placed(MUG), paid(900), shipped()):
        for order_id in orders:
            await recorder.record(order_id, event)
    return recorder


@pytest.mark.parametrize("moment", MOMENTS)
async def test_kill_9_at_every_step_of_a_batch_skips_and_doubles_nothing(
    moment: str, shop: Shop, recorder: Recorder
) -> None:
    doomed = shop.process("projector", f"kill:{moment}", PROJECTOR_BATCH_SIZE=str(BATCH))
    doomed.spawn()
    assert await doomed.until_it_ends() == -signal.SIGKILL, doomed.log.read_text()
    expected = 0 if moment in BEFORE_THE_FIRST_BATCH else 2 * BATCH if moment == "after applying" else BATCH
    assert await shop.position() == expected

    await shop.start(shop.projector)
    await recorder.record(new_order_id(), placed())
    await shop.assert_read_models_equal_the_log()
