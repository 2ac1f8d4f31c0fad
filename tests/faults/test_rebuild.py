"""Rebuilding with no downtime: beside the live generation, compared with the log, switched to, and back."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from projector import crew
from projector.__main__ import create_app
from projector.generations import Caretaker, Differs, Refused
from projector.projection import Recorded
from projector.projections import PROJECTIONS, Registered
from projector.projections.orders import ORDERS, OrderDocument
from projector.stores.redis import RedisShelf
from projector.verification import Comparison
from projector.verification import orders as verification
from shared.settings import Settings
from tests.independent_fold import assert_read_models_equal_the_log
from tests.orders import new_order_id, order_body, paid, placed
from tests.recording import Recorder
from tests.roles import settings_of
from tests.running import clients_of, eventually, free_ports, running_app
from tests.stack.orders_up import environment

NAMES = pytest.mark.parametrize("name", ["orders", "revenue_by_day"])
Clients = tuple[httpx.AsyncClient, httpx.AsyncClient]


@pytest.fixture
async def shop(stack: Settings) -> AsyncIterator[Clients]:
    """(commands, queries) of a stack in this process; what is killed is who rebuilds."""
    async with clients_of(stack) as clients:
        yield clients


@pytest.fixture
async def projecting(settings: Settings) -> AsyncIterator[None]:
    """A running projector, and nothing else."""
    (port,) = free_ports(1)
    async with running_app(create_app(settings_of(settings, "orders_projector")), port):
        yield


class Orders:
    """`orders projections`, as an operator runs it."""

    def __init__(self, settings: Settings) -> None:
        projector = settings_of(settings, "orders_projector")
        self._environment = {
            "DATABASE_URL": projector.database_url.get_secret_value(),
            "REDIS_URL": projector.redis_url.get_secret_value(),
        }

    async def start(self, *arguments: str, **added: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", "cli", "projections", *arguments),
            env=environment(**self._environment, **added),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def __call__(self, *arguments: str, code: int = 0, **added: str) -> str:
        process = await self.start(*arguments, **added)
        output = (await process.communicate())[0].decode()
        assert process.returncode == code, output
        return output


@pytest.fixture
def orders(settings: Settings) -> Orders:
    return Orders(settings)


async def assert_equal_to_the_log(settings: Settings, *read_models: str) -> None:
    await assert_read_models_equal_the_log(
        settings.database_url.get_secret_value(),
        settings.redis_url.get_secret_value(),
        read_models=read_models or ("orders", "revenue_by_day"),
    )


async def status(queries: httpx.AsyncClient, name: str) -> dict[str, Any]:
    answer = await queries.get("/projections")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = next(one for one in answer.json()["projections"] if one["name"] == name)
    return found


async def generations(queries: httpx.AsyncClient, name: str) -> tuple[int, int | None, int | None]:
    """(live, previous, building)"""
    found = await status(queries, name)
    return found["generation"], found["previous_generation"], found["building_generation"]


@asynccontextmanager
async def customers(shop: Clients) -> AsyncIterator[list[int]]:
    """Two who place orders and read them, one who looks on: any answer but the right one ends the test.

    Gives the number of reads so far.
    """
    commands, queries = shop
    reads = [0]
    stop = asyncio.Event()

    async def customer(name: str) -> None:
        placed_so_far = 0
        while not stop.is_set():
            answer = await commands.post("/orders", json=order_body(customer_id=name))
            assert answer.status_code == 201, answer.text
            placed_so_far += 1
            headers = {"Consistency-Token": answer.headers["consistency-token"], "Prefer": "wait=20"}
            read = await queries.get(f"/orders/{answer.json()['aggregate_id']}", headers=headers)
            assert read.status_code == 200, read.text
            listed = await queries.get(f"/customers/{name}/orders?limit=100", headers=headers)
            assert len(listed.json()["orders"]) == min(100, placed_so_far)
            reads[0] += 2

    async def onlooker() -> None:
        seen = {"/orders?limit=1": 0, "/reports/revenue?from=2000-01-01&to=2000-12-31": 0}
        while not stop.is_set():
            for path, before in seen.items():
                answer = await queries.get(path)
                assert answer.status_code == 200, answer.text
                position = int(answer.headers["consistency-token"].rpartition("-")[2])
                assert position >= before, f"{path} went back from {before} to {position}"
                seen[path] = position
                reads[0] += 1

    tasks = [asyncio.create_task(one) for one in (customer("ann"), customer("ben"), onlooker())]
    try:
        yield reads
    finally:
        stop.set()
        await asyncio.gather(*tasks)


@NAMES
async def test_under_load_nobody_sees_an_empty_a_mixed_or_an_older_answer(
    name: str, shop: Clients, orders: Orders, recorder: Recorder, settings: Settings
) -> None:
    queries = shop[1]
    for _ in range(300):
        await recorder.record(new_order_id(), placed())
    async with customers(shop) as reads:
        await eventually(lambda: reads[0] > 50)
        await _kill_half_way(await orders.start("rebuild", name, PROJECTOR_BATCH_SIZE="1"), name, settings)
        assert await generations(queries, name) == (1, None, 2)
        output = await orders("rebuild", name)
        assert await generations(queries, name) == (2, 1, None)
        before = reads[0]
        await eventually(lambda: reads[0] > before + 50)
        await orders("rollback", name)
        assert await generations(queries, name) == (1, 2, None)
        before = reads[0]
        await eventually(lambda: reads[0] > before + 50)
        assert "0 differences" in await orders("verify", name)

    assert "0 differences" in output
    assert "queries are answered from generation 2 now" in output
    await assert_equal_to_the_log(settings)
    assert "dropped generation 2" in await orders("drop", name)
    assert "nothing to drop" in await orders("drop", name)
    await assert_equal_to_the_log(settings)


@NAMES
@pytest.mark.parametrize("then", ["rebuild", "drop"])
async def test_killed_half_way_it_is_resumed_or_given_up(
    name: str, then: str, shop: Clients, orders: Orders, recorder: Recorder, settings: Settings
) -> None:
    for _ in range(600):
        await recorder.record(new_order_id(), placed())

    half = await _kill_half_way(await orders.start("rebuild", name, PROJECTOR_BATCH_SIZE="1"), name, settings)

    reached = await half()
    assert 30 <= reached < 600, "it was meant to be killed half-way"
    assert await generations(shop[1], name) == (1, None, 2)
    if then == "rebuild":
        resumed = await orders.start("rebuild", name, PROJECTOR_BATCH_SIZE="1")
        await eventually(lambda: _reaches(half, reached + 1), seconds=30)
        assert await resumed.wait() == 0
        assert await generations(shop[1], name) == (2, 1, None)
    assert "dropped generation" in await orders("drop", name)
    assert await half() == (0 if then == "drop" else 600)
    await assert_equal_to_the_log(settings)


async def _kill_half_way(
    process: asyncio.subprocess.Process, name: str, settings: Settings
) -> Callable[[], Awaitable[int]]:
    """Gives what tells the position of the generation it was building."""
    position = await _position_of_generation_2(name, settings)
    await eventually(lambda: _reaches(position, 30), seconds=30)
    process.send_signal(signal.SIGKILL)
    await process.wait()
    return position


async def _reaches(position: Callable[[], Awaitable[int]], wanted: int) -> bool:
    return await position() >= wanted


async def _position_of_generation_2(name: str, settings: Settings) -> Callable[[], Awaitable[int]]:
    async def position() -> int:
        if name == "orders":
            async with Redis.from_url(settings.redis_url.get_secret_value()) as redis:
                return int((await redis.hmget("{orders.0}.2:meta", ["position"]))[0] or 0)
        connection = await asyncpg.connect(settings.database_url.get_secret_value())
        try:
            statement = "select position from read_models where projection = $1 and generation = 2"
            return int(await connection.fetchval(statement, name) or 0)
        finally:
            await connection.close()

    return position


async def test_one_generation_at_a_time_is_kept(shop: Clients, orders: Orders) -> None:
    assert "no earlier generation" in await orders("rollback", "orders", code=1)
    await orders("rebuild", "orders")

    assert "`orders projections drop orders` removes it" in await orders("rebuild", "orders", code=1)

    await orders("drop", "orders")
    await orders("rebuild", "orders")
    assert await generations(shop[1], "orders") == (3, 2, None)
    assert "there is no read model 'order'" in await orders("rebuild", "order", code=1)


async def test_what_differs_from_the_log_is_not_switched_to(
    settings: Settings, recorder: Recorder, redis: Redis
) -> None:
    def miscounting(order_id: str, document: OrderDocument | None, recorded: Recorded) -> OrderDocument:
        return msgspec.structs.replace(ORDERS.apply(order_id, document, recorded), item_count=0)

    await recorder.record("42", placed())
    projector = settings_of(settings, "orders_projector")
    shelf = RedisShelf(redis, "orders", code=1)
    caretaker = Caretaker(projector, replace(ORDERS, apply=miscounting), shelf)

    async def compare(generation: int) -> Comparison:
        assert generation == 2
        return await verification.compare(recorder.connection, redis, ["{orders.0}.2:"])

    with pytest.raises(Differs, match="order 42"):
        await caretaker.rebuild(lambda *_: None, compare)

    assert (await shelf.generations()).live == 1
    assert await caretaker.drop() == [2]
    assert [key async for key in redis.scan_iter(match="{orders.0}.2:*")] == []


@NAMES
@pytest.mark.usefixtures("projecting")
async def test_verify_says_in_its_exit_code_what_it_found(
    name: str, orders: Orders, recorder: Recorder, redis: Redis, settings: Settings
) -> None:
    await recorder.record("42", placed(), paid())
    await assert_equal_to_the_log(settings)
    assert "1 documents compared, 0 differences" in await orders("verify", name)

    await recorder.connection.execute("delete from revenue_by_day")
    await redis.delete("{orders.0}:doc:42")

    assert "1 differences" in await orders("verify", name, code=1)


async def test_an_emptied_redis_is_built_again_whatever_generation_was_live(
    shop: Clients, orders: Orders, recorder: Recorder, redis: Redis, settings: Settings
) -> None:
    await recorder.record("42", placed())
    await orders("rebuild", "orders")

    await redis.flushall()

    await recorder.record("43", placed())
    await assert_equal_to_the_log(settings)
    await eventually(lambda: _answers(shop[1], "/orders/43"))
    await orders("rebuild", "orders")
    await assert_equal_to_the_log(settings)


async def _answers(queries: httpx.AsyncClient, path: str) -> bool:
    return (await queries.get(path)).status_code == 200


async def test_old_and_new_code_run_side_by_side_during_a_deploy(
    settings: Settings, recorder: Recorder, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each goes on with the generation of its own; the rebuild by the new code is the switch from one to the other."""
    projector = settings_of(settings, "orders_projector")
    newer = replace(ORDERS, version=2)
    async with AsyncExitStack() as stack:

        async def start() -> Callable[[], Awaitable[bool]]:
            (port,) = free_ports(1)
            url = await stack.enter_async_context(running_app(create_app(projector), port))
            client = await stack.enter_async_context(httpx.AsyncClient(base_url=url))

            async def ready() -> bool:
                return (await client.get("/readyz")).status_code == 200

            await eventually(ready)
            return ready

        old_is_ready = await start()
        await recorder.record("1", placed())
        await assert_equal_to_the_log(settings, "orders")
        monkeypatch.setattr(crew, "PROJECTIONS", (Registered(newer, "redis"), PROJECTIONS[1]))
        new_is_ready = await start()
        await recorder.record("2", placed())
        await assert_equal_to_the_log(settings, "orders")

        async def compare(_: int) -> Comparison:
            return await verification.compare(recorder.connection, redis, ["{orders.0}.2:"])

        await Caretaker(projector, newer, RedisShelf(redis, "orders", code=2)).rebuild(lambda *_: None, compare)

        assert await redis.hget("{orders.0}.2:meta", "code") == b"2"
        await recorder.record("3", placed())
        await assert_equal_to_the_log(settings, "orders")
        await eventually(old_is_ready)
        await eventually(new_is_ready)
        with pytest.raises(Refused, match="still kept"):
            await Caretaker(projector, newer, RedisShelf(redis, "orders", code=2)).rebuild(lambda *_: None, compare)
