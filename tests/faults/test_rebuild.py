"""Rebuilding with no downtime: beside the live generation, compared with the log, switched to, and back."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import asyncpg
import httpx
import msgspec
import pytest
from redis.asyncio import Redis

from projector.generation_manager import GenerationDiffers, GenerationManager
from projector.projection import RecordedEvent
from projector.projections.orders import ORDERS
from projector.stores.redis_generations import RedisGenerationStore
from projector.verification import Comparison
from projector.verification import compare as compare_with_log
from shared.aggregates.order import OrderDocument
from shared.read_models.keys import Checkpoint
from shared.settings import Settings
from tests.acknowledgements import Acknowledgement, assert_each_can_be_read, assert_the_log_holds_each_once
from tests.faults.next_release import MARK, OTHER_CODE
from tests.faults.operator import Operator
from tests.faults.readers import Readers
from tests.faults.shop import Process, Servers, Shop, until_more
from tests.independent_folds import assert_read_models_equal_the_log
from tests.independent_folds.orders import Document, assert_is_a_fold
from tests.orders import new_order_id, paid, placed
from tests.recording import Recorder
from tests.roles import settings_of
from tests.running import eventually, running_projector

READ_MODELS = ("orders", "revenue_by_day")
NAMES = pytest.mark.parametrize("name", READ_MODELS)
CUSTOMERS = 2
KILLED_AT = 200  # or soon after; far enough for a second beginning to be seen


@pytest.fixture
async def projecting(settings: Settings) -> AsyncIterator[None]:
    """A running projector, and nothing else; what is killed is the program that rebuilds."""
    async with running_projector(settings):
        yield


@pytest.fixture
def orders(servers: Servers) -> Operator:
    return Operator(servers)


async def generations(servers: Servers, name: str) -> tuple[int, int | None, int | None]:
    """(live, previous, building), as they are kept."""
    if name == "orders":
        async with Redis.from_url(servers.redis_url) as redis:
            found = await redis.hmget("{orders.0}.generations", ["live", "previous", "building"])
    else:
        statement = "select live, previous, building from read_model_generations where projection = $1"
        found = [*(await _fetchrow(servers, statement, name) or (None, None, None))]
    live, previous, building = (None if number is None else int(number) for number in found)
    return live or 1, previous, building


async def _fetchrow(servers: Servers, statement: str, *arguments: object) -> asyncpg.Record | None:
    connection = await asyncpg.connect(servers.database_url)
    try:
        return await connection.fetchrow(statement, *arguments)
    finally:
        await connection.close()


class Generation:
    """One of a read model of one partition."""

    def __init__(self, servers: Servers, name: str, number: int) -> None:
        self._servers = servers
        self._name = name
        self._number = number

    async def position(self) -> int:
        """0 where there is none."""
        if self._name == "orders":
            prefix = "{orders.0}:" if self._number == 1 else f"{{orders.0}}.{self._number}:"
            async with Redis.from_url(self._servers.redis_url) as redis:
                return int(await redis.hget(prefix + "meta", "position") or 0)
        statement = "select position from read_models where projection = $1 and generation = $2"
        row = await _fetchrow(self._servers, statement, self._name, self._number)
        return 0 if row is None else int(row["position"] or 0)

    async def killed_half_way(self, orders: Operator) -> int:
        """Its position then."""
        process = await orders.start("rebuild", self._name, PROJECTOR_BATCH_SIZE="1")

        async def half_way() -> bool:
            return await self.position() >= KILLED_AT

        await eventually(half_way, seconds=30)
        process.send_signal(signal.SIGKILL)
        await process.wait()
        return await self.position()

    async def resumed(self, orders: Operator, reached: int, **added: str) -> str:
        """What the rebuild prints that goes on from there, which never begins again."""
        process = await orders.start("rebuild", self._name, **added)
        rebuilding = asyncio.create_task(process.communicate())
        while not rebuilding.done():
            assert (at := await self.position()) >= reached, f"it was at {reached}, now it is at {at}"
            await asyncio.wait([rebuilding], timeout=0.005)
        output = rebuilding.result()[0].decode()
        assert process.returncode == 0, output
        assert "building the read model from the start" not in output
        return output


@pytest.mark.promise(
    "rebuilds", "During a rebuild, its crash, the switch and the rollback no answer is empty, mixed or older"
)
async def test_under_load_nobody_sees_an_empty_a_mixed_or_an_older_answer(shop: Shop, orders: Operator) -> None:
    await shop.start()
    customers = shop.customers()
    readers = Readers(shop.query.url, customers.acknowledged, customers=CUSTOMERS, wait=20)
    async with customers.ordering(CUSTOMERS), readers.reading(without_tokens=True):
        await until_more(customers.acknowledged, 2 * KILLED_AT)
        for name in READ_MODELS:
            reached = await Generation(shop.servers, name, 2).killed_half_way(orders)
            assert await generations(shop.servers, name) == (1, None, 2)
            output = await Generation(shop.servers, name, 2).resumed(orders, reached)
            assert "0 differences" in output
            assert "queries are answered from generation 2 now" in output
            assert await shown(shop, name) == (2, 1, None)
            await readers.until_more()
            await orders("rollback", name)
            assert await shown(shop, name) == (1, 2, None)
            await readers.until_more()
            assert "0 differences" in await orders("verify", name)
    assert readers.codes() == {(200, "")}
    await shop.assert_all_is_well(customers.acknowledged)
    for name in READ_MODELS:
        assert "dropped generation 2" in await orders("drop", name)
        assert "nothing to drop" in await orders("drop", name)
    await shop.assert_read_models_equal_the_log()


async def shown(shop: Shop, name: str) -> tuple[int, int | None, int | None]:
    """(live, previous, building), as the query service says it."""
    async with httpx.AsyncClient(base_url=shop.query.url, timeout=30) as queries:
        found = (await queries.get("/projections")).json()["projections"]
    one = next(one for one in found if one["name"] == name)
    return one["generation"], one["previous_generation"], one["building_generation"]


@pytest.mark.promise("rebuilds", "A killed rebuild is resumed or dropped")
@NAMES
@pytest.mark.usefixtures("projecting")
async def test_killed_half_way_it_is_resumed_or_given_up(
    name: str, orders: Operator, recorder: Recorder, servers: Servers
) -> None:
    events = 3 * KILLED_AT
    await recorder.record_each([new_order_id() for _ in range(events)], placed(), datetime.now(UTC))
    second, third = (Generation(servers, name, number) for number in (2, 3))

    reached = await second.killed_half_way(orders)
    assert KILLED_AT <= reached < events, "it was meant to be killed half-way"
    assert await generations(servers, name) == (1, None, 2)
    await second.resumed(orders, reached, PROJECTOR_BATCH_SIZE="1")
    assert await generations(servers, name) == (2, 1, None)
    assert "dropped generation 1" in await orders("drop", name)
    assert await second.position() == events

    await third.killed_half_way(orders)
    assert await generations(servers, name) == (2, None, 3)
    assert "dropped generation 3" in await orders("drop", name)
    assert await third.position() == 0
    await assert_equal_to_the_log(servers)


async def assert_equal_to_the_log(servers: Servers, *read_models: str) -> None:
    await assert_read_models_equal_the_log(
        servers.database_url, servers.redis_url, read_models=read_models or READ_MODELS
    )


@pytest.mark.promise("rebuilds", "The previous generation stays until it is dropped, and only one is kept")
@pytest.mark.usefixtures("projecting")
async def test_one_generation_at_a_time_is_kept(orders: Operator, servers: Servers) -> None:
    assert "no earlier generation" in await orders("rollback", "orders", code=1)
    await orders("rebuild", "orders")

    assert "`orders projections drop orders` removes it" in await orders("rebuild", "orders", code=1)

    await orders("drop", "orders")
    await orders("rebuild", "orders")
    assert await generations(servers, "orders") == (3, 2, None)
    assert "there is no read model 'order'" in await orders("rebuild", "order", code=1)


@pytest.mark.promise("rebuilds", "A generation that differs from the log is never switched to")
async def test_what_differs_from_the_log_is_not_switched_to(
    settings: Settings, recorder: Recorder, redis: Redis
) -> None:
    def miscounting(order_id: str, document: OrderDocument | None, recorded: RecordedEvent[Any]) -> OrderDocument:
        return msgspec.structs.replace(ORDERS.apply(order_id, document, recorded), item_count=0)

    await recorder.record("42", placed())
    projector = settings_of(settings, "orders_projector")
    generation_store = RedisGenerationStore(redis, "orders", code=1)
    generation_manager = GenerationManager(projector, replace(ORDERS, apply=miscounting), generation_store)

    async def compare(generation: int) -> Comparison:
        assert generation == 2
        return await compare_with_log(recorder.connection, ORDERS, [generation_store.inspection(generation)])

    with pytest.raises(GenerationDiffers, match="document 42"):
        await generation_manager.rebuild(lambda *_: None, compare)

    assert (await generation_store.generations()).live == 1
    assert await generation_manager.drop() == [2]
    assert [key async for key in redis.scan_iter(match="{orders.0}.2:*")] == []


@pytest.mark.promise("rebuilds", "A rebuild ends even under load that never pauses")
@pytest.mark.usefixtures("projecting")
async def test_a_live_generation_that_never_stands_still_is_switched_from(
    settings: Settings, recorder: Recorder, redis: Redis, servers: Servers
) -> None:
    """The rebuild makes smaller steps than the live generation, and finds more to do at each of them."""
    await recorder.record("42", placed())
    await assert_equal_to_the_log(servers)

    class MovingGenerationStore(RedisGenerationStore):
        async def checkpoints(self, generation: int) -> list[Checkpoint | None]:
            if generation == 1:
                for _ in range(3):
                    await recorder.record(new_order_id(), placed())
                await assert_equal_to_the_log(servers)
            return await super().checkpoints(generation)

    changes = {"projector_partitions": "orders=2", "projector_batch_size": 1}
    projector = settings_of(settings, "orders_projector").model_copy(update=changes)

    async def compare(_: int) -> Comparison:
        return Comparison()

    generation_store = MovingGenerationStore(redis, "orders", code=1)
    async with asyncio.timeout(10):
        assert await GenerationManager(projector, ORDERS, generation_store).rebuild(lambda *_: None, compare) == 2
    await assert_equal_to_the_log(servers)


@pytest.mark.promise("rebuilds", "`orders projections verify` tells differences by its exit code")
@NAMES
@pytest.mark.usefixtures("projecting")
async def test_verify_says_in_its_exit_code_what_it_found(
    name: str, orders: Operator, recorder: Recorder, redis: Redis, servers: Servers
) -> None:
    await recorder.record("42", placed(), paid())
    await assert_equal_to_the_log(servers)
    assert "1 documents compared, 0 differences" in await orders("verify", name)

    await recorder.connection.execute("delete from revenue_by_day")
    await redis.delete("{orders.0}:doc:42")

    assert "1 differences" in await orders("verify", name, code=1)


@pytest.mark.promise("rebuilds", "A Redis that is emptied after a switch is built again")
async def test_an_emptied_redis_is_built_again_whatever_generation_was_live(
    query_url: str, orders: Operator, recorder: Recorder, redis: Redis, servers: Servers
) -> None:
    await recorder.record("42", placed())
    await orders("rebuild", "orders")

    await redis.flushall()

    await recorder.record("43", placed())
    await assert_equal_to_the_log(servers)
    async with httpx.AsyncClient(base_url=query_url) as queries:

        async def answers() -> bool:
            return (await queries.get("/orders/43")).status_code == 200

        await eventually(answers)
    await orders("rebuild", "orders")
    await assert_equal_to_the_log(servers)


@pytest.mark.promise(
    "rebuilds", "Old and new code of a projection run side by side; neither continues the other's generation"
)
async def test_old_and_new_code_run_side_by_side_during_a_deploy(shop: Shop, servers: Servers) -> None:
    """Each goes on with the generation of its own; the rebuild by the new code is the switch from one to the other."""
    old, new = (shop.process("projector", release=release) for release in ("same-code", "other-code"))
    first, second = (Generation(servers, "orders", number) for number in (1, 2))
    await shop.start(shop.command, old, shop.query)
    customers = shop.customers()
    async with customers.ordering(1):
        await shop.start(new)
        await eventually(lambda: _refuses(new, generation=1, theirs=ORDERS.version, ours=OTHER_CODE))
        await until_more(customers.acknowledged, 20)
        await shop.assert_has_reached(customers.acknowledged[-1])
        await asyncio.to_thread(old.stop)
        await _assert_nobody_goes_on(first, shop, customers.acknowledged)

        assert "0 differences" in await Operator(servers, release="other-code")("rebuild", "orders")
        await until_more(customers.acknowledged, 20)
        await shop.assert_has_reached(customers.acknowledged[-1])
        await shop.start(old)
        await eventually(lambda: _refuses(old, generation=2, theirs=OTHER_CODE, ours=ORDERS.version))
        await until_more(customers.acknowledged, 20)
        await shop.assert_has_reached(customers.acknowledged[-1])
        new.kill()
        await _assert_nobody_goes_on(second, shop, customers.acknowledged)

        await shop.start(new)
        await until_more(customers.acknowledged, 20)
    await assert_the_log_holds_each_once(servers.database_url, customers.acknowledged, and_nothing_else=True)
    await assert_each_can_be_read(shop.query.url, customers.acknowledged[-20:])
    head = max(one["position"] for one in customers.acknowledged)

    def made_by_the_new(document: Document) -> Document:
        return {**document, "tracking_number": MARK * document["version"]}

    at = await assert_is_a_fold(servers.database_url, servers.redis_url, 2, made_by_the_new)
    assert at == head
    assert await assert_is_a_fold(servers.database_url, servers.redis_url, 1) < head
    await assert_equal_to_the_log(servers, "revenue_by_day")


def _refuses(projector: Process, *, generation: int, theirs: int, ours: int) -> bool:
    said = f"generation {generation} is folded by version {theirs} of the projection's code, this is version {ours}"
    return said in projector.log.read_text()


async def _assert_nobody_goes_on(generation: Generation, shop: Shop, acknowledged: list[Acknowledgement]) -> None:
    """Though the projector that is left takes over what it may: the other read model."""
    await _report_reaches(acknowledged[-1], shop)
    stands = await generation.position()
    await until_more(acknowledged, 20)
    await _report_reaches(acknowledged[-1], shop)
    assert await generation.position() == stands < acknowledged[-1]["position"]


async def _report_reaches(acknowledgement: Acknowledgement, shop: Shop) -> None:
    headers = {"Consistency-Token": acknowledgement["consistency_token"], "Prefer": "wait=30"}
    async with httpx.AsyncClient(base_url=shop.query.url, timeout=40) as queries:
        answer = await queries.get("/reports/revenue?from=2026-01-01&to=2026-01-01", headers=headers)
    assert answer.status_code == 200, answer.text
