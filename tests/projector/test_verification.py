"""Comparing read models with the log finds every difference, and none where there is none."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from redis.asyncio import Redis

from projector.verification import orders, revenue_by_day
from shared.settings import Settings
from tests.independent_folds import assert_read_models_equal_the_log
from tests.orders import paid, placed
from tests.recording import Recorder
from tests.running import running_projector


@pytest.fixture
async def projecting(settings: Settings) -> AsyncIterator[None]:
    """A running projector, and nothing else."""
    async with running_projector(settings):
        yield


TAMPERING: dict[str, Callable[[Redis], Awaitable[Any]]] = {
    "another document": lambda redis: redis.hset("{orders.0}:doc:42", "document", json.dumps({"order_id": "42"})),
    "another version": lambda redis: redis.hset("{orders.0}:doc:42", "version", "7"),
    "no document": lambda redis: redis.delete("{orders.0}:doc:42"),
    "a document too many": lambda redis: redis.hset("{orders.0}:doc:43", "version", "1"),
    "not in a list": lambda redis: redis.zpopmin("{orders.0}:customer:alice"),
    "in the list of another status": lambda redis: redis.zunionstore("{orders.0}:status:SHIPPED", ["{orders.0}:all"]),
    "in the list of another customer": lambda redis: redis.zunionstore("{orders.0}:customer:bob", ["{orders.0}:all"]),
    "at another place": lambda redis: redis.zadd("{orders.0}:all", {"0" * 15 + "42": 0}),
}


@pytest.mark.promise("rebuilds", "Verification finds every difference from the log")
@pytest.mark.usefixtures("projecting")
@pytest.mark.parametrize("tampering", TAMPERING)
async def test_whatever_differs_in_redis_is_found(
    tampering: str, recorder: Recorder, redis: Redis, settings: Settings
) -> None:
    await recorder.record("42", placed(), paid())
    await assert_read_models_equal_the_log(
        settings.database_url.get_secret_value(), settings.redis_url.get_secret_value()
    )
    assert (await orders.compare(recorder.connection, redis, ["{orders.0}:"])).differences == 0

    await TAMPERING[tampering](redis)

    assert re.search("42|43", str(await orders.compare(recorder.connection, redis, ["{orders.0}:"])))


@pytest.mark.promise("rebuilds", "Verification finds every difference from the log")
@pytest.mark.usefixtures("projecting")
@pytest.mark.parametrize(
    "tampering",
    [
        "update revenue_by_day set placed = placed + 1",
        "delete from revenue_by_day",
        "insert into revenue_by_day select 1, day, currency, 'SHIPPED', 1, 1, 1, 0 from revenue_by_day",
        "update read_model_documents set document = '{}'",
        "delete from read_model_documents",
        "insert into read_model_documents select projection, 1, 'x', document from read_model_documents",
    ],
)
async def test_whatever_differs_in_postgresql_is_found(tampering: str, recorder: Recorder, settings: Settings) -> None:
    await recorder.record("42", placed(), paid())
    await assert_read_models_equal_the_log(
        settings.database_url.get_secret_value(), settings.redis_url.get_secret_value()
    )
    assert (await revenue_by_day.compare(recorder.connection, 1)).differences == 0

    await recorder.connection.execute(tampering)

    assert "the log says" in str(await revenue_by_day.compare(recorder.connection, 1))
