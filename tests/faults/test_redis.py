"""Redis loses everything, some of it, or its room to write; what customers read stays a fold of the log."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
from redis.asyncio import Redis

from cli.stack.embedded_valkey import EmbeddedValkey
from tests.faults.readers import Readers
from tests.faults.shop import Servers, Shop, codes, until_more
from tests.running import eventually


@pytest.fixture
def servers(database_url: str, mortal_valkey: EmbeddedValkey) -> Servers:
    return Servers(database_url, mortal_valkey.url)


@pytest.fixture
async def redis(mortal_valkey: EmbeddedValkey) -> AsyncIterator[Redis]:
    async with Redis.from_url(mortal_valkey.url) as client:
        yield client


def replace_data(server: EmbeddedValkey, by: Path) -> None:
    server.kill()
    shutil.rmtree(server.directory)
    by.rename(server.directory)
    server.start()


@pytest.mark.promise("commands", "Commands do not depend on Redis")
@pytest.mark.promise("read-models", "An emptied Redis is folded again; meanwhile no answer is wrong")
async def test_flushall_under_load_is_folded_again_and_nobody_is_told_a_wrong_answer(shop: Shop, redis: Redis) -> None:
    await shop.start()
    customers = shop.customers()
    async with customers.ordering(4), httpx.AsyncClient(base_url=shop.query.url, timeout=10) as queries:
        for _ in range(3):
            await until_more(customers.acknowledged)
            [first, *_] = customers.acknowledged
            await redis.flushall()
            answers = [await queries.get(f"/orders/{first['aggregate_id']}") for _ in range(100)]
            # In particular no 404: an acknowledged order exists.
            assert codes(answers) <= {(200, ""), (503, "projection-rebuilding")}
    assert customers.asked_again == 0, "commands do not depend on Redis"
    await shop.assert_all_is_well(customers.acknowledged)


@pytest.mark.promise(
    "read-models", "An older copy of Redis continues from its own checkpoint and never answers a newer token"
)
async def test_an_older_copy_of_redis_continues_from_what_it_has(
    shop: Shop, mortal_valkey: EmbeddedValkey, tmp_path: Path
) -> None:
    older_copy = tmp_path / "older copy"
    await shop.start()
    customers = shop.customers()
    readers = Readers(shop.query.url, customers.acknowledged, customers=2)
    async with customers.ordering(2):
        await until_more(customers.acknowledged)
        await asyncio.to_thread(mortal_valkey.stop)
        shutil.copytree(mortal_valkey.directory, older_copy)
        copied_at = max(one["position"] for one in customers.acknowledged)
        mortal_valkey.start()
        await until_more(customers.acknowledged, 200)
        await shop.query.until_ready()
        await eventually(lambda: _position_beyond(shop, copied_at + 100))

        said = len(shop.projector.log.read_text())
        async with readers.reading():
            await readers.until_more()
            # Nothing brings the copy up to date before the newest tokens meet it.
            shop.projector.pause()
            await asyncio.to_thread(replace_data, mortal_valkey, older_copy)
            await readers.until_more(2, "order", "orders", status=503)
            shop.projector.resume()
            await readers.until_more()
        await until_more(customers.acknowledged)
    assert customers.asked_again == 0, "commands do not depend on Redis"
    await shop.assert_all_is_well(customers.acknowledged)
    assert (503, "projection-lagging") in readers.codes("order") & readers.codes("orders")
    assert readers.codes() <= {(200, ""), (503, "projection-lagging"), (503, "read-model-unavailable")}
    assert readers.codes("history") == {(200, "")}, "the log needs no Redis"
    said_since = shop.projector.log.read_text()[said:]
    assert '"message":"resuming"' in said_since
    assert "building the read model from the start" not in said_since


async def _position_beyond(shop: Shop, position: int) -> bool:
    return await shop.position() > position


@pytest.mark.promise("read-models", "A Redis without memory refuses whole batches, never half of one")
async def test_a_redis_without_memory_refuses_whole_batches_and_goes_on_when_it_has_some(
    shop: Shop, redis: Redis
) -> None:
    await shop.start()
    customers = shop.customers()
    async with customers.ordering(2), httpx.AsyncClient(base_url=shop.query.url, timeout=10) as queries:
        await until_more(customers.acknowledged)
        await redis.config_set("maxmemory", "1mb")
        stopped_at = await shop.position()
        first, last = customers.acknowledged[0], customers.acknowledged[-1]
        await until_more(customers.acknowledged)

        async def projector_says_why() -> bool:
            answer = await asyncio.to_thread(httpx.get, f"{shop.projector.url}/readyz")
            return answer.status_code == 503 and "OutOfMemory" in answer.json()["detail"]

        await eventually(projector_says_why)
        # What is there is served; what is asked for in vain is said to be late.
        old = await queries.get(f"/orders/{first['aggregate_id']}")
        assert old.status_code == 200, old.text
        newest = customers.acknowledged[-1]["consistency_token"]
        late = await queries.get(
            f"/orders/{last['aggregate_id']}", headers={"Consistency-Token": newest, "Prefer": "wait=0"}
        )
        assert codes([late]) == {(503, "projection-lagging")}
        assert int(late.headers["retry-after"]) >= 1
        assert await shop.position() - stopped_at < 50

        await redis.config_set("maxmemory", "0")
        await shop.projector.until_ready()
        await until_more(customers.acknowledged)
    assert customers.asked_again == 0, "commands do not depend on Redis"
    await shop.assert_all_is_well(customers.acknowledged)
