"""The subscription to the checkpoints of a read model, when one message fails."""

from __future__ import annotations

import asyncio
from uuid import UUID

import pytest
from redis.asyncio import Redis

from query_service.checkpoint_subscription import CheckpointSubscription
from shared.eventstore.token import ConsistencyToken
from shared.read_models.keys import PartitionKeys
from tests.running import eventually

CHANNEL = PartitionKeys("orders").channel


@pytest.mark.promise("queries", "No single message ends the subscription to checkpoints")
async def test_a_defect_in_one_message_does_not_end_the_subscription(
    redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("query_service.checkpoint_subscription.RECONNECT_SECONDS", 0.01)
    monkeypatch.setattr("query_service.checkpoint_subscription.POLL_SECONDS", 3600.0)
    subscription = CheckpointSubscription(redis, "orders")
    tell, failed = subscription._update, asyncio.Event()

    def fail_once(partition: int, position: int) -> None:
        if not failed.is_set():
            failed.set()
            raise ZeroDivisionError
        tell(partition, position)

    monkeypatch.setattr(subscription, "_update", fail_once)

    async def heard_of() -> bool:
        await redis.publish(CHANNEL, ConsistencyToken(UUID(int=1), 7).encode())
        return subscription.count > 0

    subscription.start()
    await eventually(heard_of)

    assert failed.is_set()
    await subscription.close()
