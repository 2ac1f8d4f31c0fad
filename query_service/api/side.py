"""The parts that the routes work with, and how a query asks them for an answer that is fresh enough."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeVar

from fastapi import Request
from redis.asyncio import Redis

from query_service.api.requests import preferred_wait
from query_service.freshness import Freshness
from query_service.log import Log
from query_service.read_models.orders import Orders
from query_service.reader import At, Reading
from shared.consistency import ConsistencyToken
from shared.read_model_keys import PartitionKeys

T = TypeVar("T")


class QuerySide(NamedTuple):
    redis: Redis
    keys: PartitionKeys
    log: Log
    orders: Orders
    freshness: Freshness
    token_wait_seconds: float


def query_side(request: Request) -> QuerySide:
    side: QuerySide = request.app.state.query_side
    return side


async def answer(
    side: QuerySide, request: Request, read: Callable[[], Awaitable[Reading[T]]]
) -> tuple[At, T, dict[str, str]]:
    """Where in the log the answer stands, the answer, and the headers that every answer carries.

    Raises what `Freshness` and `read` raise, and `MalformedToken`.
    """
    token = request.headers.get("consistency-token")
    if token is None:
        at, value = await side.freshness.read(read)
        assert at is not None
        return at, value, {"Consistency-Token": at.token}
    preferred = preferred_wait(request.headers.get("prefer"))
    wait = side.token_wait_seconds if preferred is None else preferred
    at, value = await side.freshness.read_at_least(ConsistencyToken.decode(token), wait, read)
    assert at is not None
    headers = {"Consistency-Token": at.token}
    if preferred is not None:
        headers["Preference-Applied"] = f"wait={preferred}"
    return at, value, headers
