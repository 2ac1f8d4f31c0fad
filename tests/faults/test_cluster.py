"""Projector and query service on a Cluster: the same programs, with another URL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from redis.asyncio import Redis
from redis.asyncio.connection import Connection

from query_service.checkpoint_subscription import CheckpointSubscription
from shared.eventstore.token import ConsistencyToken
from shared.read_models.keys import PartitionKeys
from shared.redis import REDIS_DOWN, create_redis
from tests.faults.cluster import Node, cluster_url, running_cluster
from tests.faults.operator import projections
from tests.faults.readers import Readers
from tests.faults.shop import Servers, Shop, until_more
from tests.running import eventually, settings_for

PARTITIONS = "orders=4,revenue_by_day=2"


@pytest.fixture
async def nodes(tmp_path: Path) -> AsyncIterator[list[Node]]:
    async with running_cluster(tmp_path) as nodes:
        yield nodes


@pytest.mark.promise(
    "read-models", "On a Redis Cluster everything runs unchanged, also while a master dies and returns"
)
async def test_on_a_cluster_everything_runs_unchanged_even_when_a_master_dies_and_returns(
    tmp_path: Path, database_url: str, nodes: list[Node]
) -> None:
    shop = Shop(tmp_path, Servers(database_url, cluster_url(nodes)), PROJECTOR_PARTITIONS=PARTITIONS)
    try:
        await shop.start()
        customers = shop.customers()
        readers = Readers(shop.query.url, customers.acknowledged, customers=4)
        async with customers.ordering(4):
            await until_more(customers.acknowledged)
            await assert_lists_are_complete(shop, customers.acknowledged)
            output = await projections(shop, "rebuild", "orders", PROJECTOR_PARTITIONS=PARTITIONS)
            assert "0 differences" in output
            await until_more(customers.acknowledged)
            async with readers.reading():
                await readers.until_more()
                nodes[1].kill()
                await until_more(customers.acknowledged)
                await readers.until_more(5, "orders", status=503)  # of every partition
                nodes[1].start()
                await readers.until_more()
        down = {(503, "read-model-unavailable"), (503, "projection-lagging"), (503, "projection-rebuilding")}
        assert down & readers.codes("order", "orders")
        assert readers.codes() <= {(200, ""), *down}
        assert readers.codes("history") == {(200, "")}
        await shop.assert_all_is_well(customers.acknowledged)
        await assert_lists_are_complete(shop, customers.acknowledged)
        assert "dropped generation 1" in await projections(shop, "drop", "orders")
        assert "0 differences" in await projections(shop, "verify", "orders")
        await shop.assert_read_models_equal_the_log()
        assert await nodes_with_documents(nodes) > 1
    finally:
        shop.close()


@pytest.mark.promise("read-models", "Checkpoint messages arrive from partitions on every node of a Redis Cluster")
async def test_news_come_from_partitions_on_every_node(nodes: list[Node]) -> None:
    settings = settings_for("postgresql://nowhere", cluster_url(nodes))
    redis = create_redis(settings)
    news = CheckpointSubscription(redis, "orders")
    news.start()
    try:
        publish = redis.register_script("return redis.call('PUBLISH', ARGV[1], ARGV[2])")
        for keys in PartitionKeys("orders").each(8):
            token = ConsistencyToken(UUID(int=1), keys.partition + 1).encode()

            async def received(keys: PartitionKeys = keys, token: str = token) -> bool:
                await publish([keys.meta], [keys.channel, token])
                return news._partitions[keys.partition].position == keys.partition + 1

            await eventually(received)
    finally:
        await news.close()
        await redis.aclose()


@pytest.mark.promise("read-models", "A Redis connection that another task dropped counts as Redis being away")
async def test_a_connection_that_another_task_has_dropped_counts_as_away(
    nodes: list[Node], monkeypatch: pytest.MonkeyPatch
) -> None:
    send: Any = Connection._send_packed_command

    async def send_on_a_dropped_one(self: Connection, command: Any) -> None:
        await self.disconnect(nowait=True)  # as others do once a node is away
        await send(self, command)

    async with create_redis(settings_for("postgresql://nowhere", cluster_url(nodes))) as redis:
        monkeypatch.setattr(Connection, "_send_packed_command", send_on_a_dropped_one)
        with pytest.raises(REDIS_DOWN):
            await redis.get("anything")


async def assert_lists_are_complete(shop: Shop, acknowledged: list[dict[str, Any]]) -> None:
    """Page by page: every acknowledged order once, the newest first."""
    token = max((one["consistency_token"] for one in acknowledged), key=lambda token: int(token.split("-")[1]))
    expected = {one["aggregate_id"] for one in acknowledged}
    listed: list[tuple[str, str]] = []
    path: str | None = "/orders?limit=20"
    async with httpx.AsyncClient(base_url=shop.query.url, timeout=40) as queries:
        while path is not None:
            answer = await queries.get(path, headers={"Consistency-Token": token, "Prefer": "wait=30"})
            assert answer.status_code == 200, answer.text
            listed += [(order["placed_at"], order["order_id"]) for order in answer.json()["orders"]]
            path = answer.links["next"]["url"] if "next" in answer.links else None
    order_ids = [order_id for _, order_id in listed]
    assert len(set(order_ids)) == len(order_ids)
    assert expected <= set(order_ids)
    assert [at for at, _ in listed] == sorted((at for at, _ in listed), reverse=True)


async def nodes_with_documents(nodes: list[Node]) -> int:
    count = 0
    for node in nodes:
        async with Redis.from_url(node.url) as client:
            count += len(await client.keys("{orders.*doc:*")) > 0
    return count
