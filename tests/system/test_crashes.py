"""`kill -9` of every process in turn while orders arrive: nothing acknowledged is lost, nothing happens twice."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator

import asyncpg
import pytest

from tests.independent_fold import assert_read_models_equal_the_log
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
    await _the_log_holds_every_promise_once(up, customers)
    await _every_promise_can_be_read(up, customers)
    await assert_read_models_equal_the_log(up.descriptor.database_url, up.descriptor.redis_url)


async def _the_log_holds_every_promise_once(up: OrdersUp, customers: Customers) -> None:
    connection = await asyncpg.connect(up.descriptor.database_url)
    try:
        rows = await connection.fetch("select position, stream_id, version, metadata from events order by position")
    finally:
        await connection.close()
    assert [row["position"] for row in rows] == list(range(1, len(rows) + 1))
    log = Counter((json.loads(row["metadata"])["command_id"], row["stream_id"], row["version"]) for row in rows)
    promised = [(p["command_id"], f"order-{p['aggregate_id']}", p["version"]) for p in customers.promises]
    assert len(set(promised)) == len(promised)
    assert [promise for promise in promised if log[promise] != 1] == []


async def _every_promise_can_be_read(up: OrdersUp, customers: Customers) -> None:
    import httpx

    async with httpx.AsyncClient(base_url=up.query_url, timeout=40) as queries:
        for promise in customers.promises[-50:]:
            headers = {"Consistency-Token": promise["consistency_token"], "Prefer": "wait=30"}
            answer = await queries.get(f"/orders/{promise['aggregate_id']}", headers=headers)
            assert answer.status_code == 200, answer.text
            assert answer.json()["version"] >= promise["version"]
