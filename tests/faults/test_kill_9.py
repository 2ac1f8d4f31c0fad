"""`kill -9` of every process in turn while orders arrive: nothing acknowledged is lost, nothing happens twice."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from tests.independent_fold import assert_read_models_equal_the_log
from tests.promises import assert_each_can_be_read, assert_the_log_holds_each_once
from tests.running import eventually
from tests.stack.orders_up import OrdersUp
from tests.system.customers import Customers


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OrdersUp]:
    stack = OrdersUp(tmp_path_factory.mktemp("system") / "data")
    try:
        yield stack.until_ready()
    finally:
        stack.stop()


@pytest.mark.parametrize("victim", ["projector", "command", "valkey", "postgres"])
async def test_a_kill_9_while_orders_arrive_loses_and_doubles_nothing(victim: str, up: OrdersUp) -> None:
    customers = Customers(up.command_url)
    async with customers.ordering():
        await eventually(lambda: len(customers.promises) > 200)
        said, promised = len(up.terminal), len(customers.promises)
        os.kill(up.descriptor.children[victim].pid, signal.SIGKILL)
        await eventually(lambda: f"{victim} is back" in up.terminal[said:], seconds=30)
        await eventually(lambda: len(customers.promises) > promised + 200, seconds=30)
    await assert_the_log_holds_each_once(up.descriptor.database_url, customers.promises)
    await assert_each_can_be_read(up.query_url, customers.promises[-50:])
    await assert_read_models_equal_the_log(up.descriptor.database_url, up.descriptor.redis_url)
