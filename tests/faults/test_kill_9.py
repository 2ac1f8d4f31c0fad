"""`kill -9` of every process in turn, of `orders up` itself, and of all at once, while orders arrive: nothing
acknowledged is lost, nothing happens twice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress

import psutil
import pytest

from tests.acknowledgements import Acknowledgement, assert_each_can_be_read, assert_the_log_holds_each_once
from tests.faults.shop import until_more
from tests.independent_folds import assert_read_models_equal_the_log
from tests.running import eventually
from tests.stack.orders_up import OrdersUp, living
from tests.system.customers import Customers


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrdersUp]:
    stack = OrdersUp(tmp_path_factory.mktemp("system") / "data")
    try:
        yield stack.until_ready()
    finally:
        stack.stop()


@pytest.fixture(scope="module")
def acknowledged() -> list[Acknowledgement]:
    """All that the stack was ever asked for."""
    return []


@asynccontextmanager
async def customers_ordering(up: OrdersUp, acknowledged: list[Acknowledgement]) -> AsyncIterator[None]:
    """Before, during and after the block; then the log holds exactly what was acknowledged, and it can be read."""
    customers = Customers(up.command_url)
    customers.acknowledged = acknowledged
    async with customers.ordering():
        await until_more(acknowledged, 200)
        yield
        await until_more(acknowledged, 200)
    stack = up.descriptor
    await assert_the_log_holds_each_once(stack.database_url, acknowledged, and_nothing_else=True)
    await assert_each_can_be_read(up.query_url, acknowledged[-50:])
    await assert_read_models_equal_the_log(stack.database_url, stack.redis_url)


@pytest.mark.promise("commands", "An acknowledged command survives `kill -9` of any process")
@pytest.mark.parametrize("victim", ["projector", "command", "valkey", "postgres"])
async def test_a_kill_9_while_orders_arrive_loses_and_doubles_nothing(
    victim: str, up: OrdersUp, acknowledged: list[Acknowledgement]
) -> None:
    async with customers_ordering(up, acknowledged):
        said = len(up.terminal)
        os.kill(up.descriptor.children[victim].pid, signal.SIGKILL)
        await eventually(lambda: f"{victim} is back" in up.terminal[said:], seconds=30)


@pytest.mark.promise("orders-up", "A killed `orders up` leaves no process, and the next start has every order")
async def test_kill_9_of_orders_up_leaves_no_process_and_the_next_start_has_every_order(
    up: OrdersUp, acknowledged: list[Acknowledgement]
) -> None:
    async with customers_ordering(up, acknowledged):
        processes = up.processes()
        up.stop(signal.SIGKILL)
        await eventually(lambda: not living(processes), seconds=30)
        up.start_again()
        await asyncio.to_thread(up.until_ready)


@pytest.mark.promise("commands", "An acknowledged command survives `kill -9` of all processes at once")
async def test_kill_9_of_everything_at_once_loses_no_acknowledged_order(
    up: OrdersUp, acknowledged: list[Acknowledgement]
) -> None:
    async with customers_ordering(up, acknowledged):
        for process in up.processes():
            with suppress(psutil.NoSuchProcess):  # it died with the first
                process.kill()
        up.process.wait()
        up.start_again()
        await asyncio.to_thread(up.until_ready)
