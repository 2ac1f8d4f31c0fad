"""The parts that the routes work with, and how a query asks them for an answer that is fresh enough."""

from __future__ import annotations

from typing import NamedTuple, TypeVar

from fastapi import Request

from query_service.api.requests import preferred_wait
from query_service.freshness import Freshness, Read
from query_service.log import Log
from query_service.read_models.orders import Orders
from query_service.read_models.revenue_by_day import Revenue
from query_service.reading import At
from query_service.standing import Ask
from shared.eventstore.token import ConsistencyToken

T = TypeVar("T")


class QuerySide(NamedTuple):
    log: Log
    orders: Orders
    freshness: Freshness  # of the orders
    revenue: Revenue
    revenue_freshness: Freshness
    standings: dict[str, Ask]  # of every read model, by name
    token_wait_seconds: float
    long_transaction_seconds: float


def query_side(request: Request) -> QuerySide:
    side: QuerySide = request.app.state.query_side
    return side


async def answer(
    side: QuerySide,
    request: Request,
    read: Read[T],
    freshness: Freshness | None = None,
) -> tuple[At, T, dict[str, str]]:
    """Where in the log the answer stands, the answer, and the headers that every answer carries.

    `freshness` is that of the read model that is read, without it that of the orders.

    Raises what `Freshness` and `read` raise, and `MalformedToken`.
    """
    freshness = freshness or side.freshness
    token = request.headers.get("consistency-token")
    if token is None:
        at, value, _ = await freshness.read(read)
        assert at is not None
        return at, value, {"Consistency-Token": at.token}
    preferred = preferred_wait(request.headers.get("prefer"))
    wait = side.token_wait_seconds if preferred is None else preferred
    at, value, _ = await freshness.read_at_least(ConsistencyToken.decode(token), wait, read)
    assert at is not None
    headers = {"Consistency-Token": at.token}
    if preferred is not None:
        headers["Preference-Applied"] = f"wait={preferred}"
    return at, value, headers
