"""What follows for the query service from one entry in the registry of aggregates, and in that of read models."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias
from unittest.mock import patch
from uuid import uuid4

import asyncpg
import httpx
import msgspec
import pytest
from fastapi import APIRouter, Request
from redis.asyncio import Redis
from starlette.responses import Response

from query_service.api.dependencies import answer
from query_service.coalescing_reader import CoalescingReader
from query_service.read_model import ReadModel
from query_service.read_models import READ_MODELS
from query_service.read_models import register as register_read_model
from query_service.redis_store import in_redis
from shared.aggregates import AGGREGATES, EVENT_TYPES, register
from shared.aggregates.aggregate import Aggregate, Owner
from shared.eventstore import codec
from shared.eventstore import log as event_log
from shared.eventstore.append_request import AppendRequest, NewEvent
from shared.identity.access import allowed
from shared.identity.caller import Role
from shared.read_models.keys import PartitionKeys
from shared.settings import Settings
from tests.given_when_then import problem
from tests.query_service.event_source import following
from tests.query_service.reads import etag
from tests.query_service.redis_read_model import write, write_heartbeat
from tests.running import eventually, running_query_service

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)


class CartOpened(msgspec.Struct, frozen=True):
    shopper: str


class ProductAdded(msgspec.Struct, frozen=True):
    product: str


@dataclass(frozen=True)
class Cart:
    shopper: str
    products: tuple[str, ...] = ()


def evolve(state: Cart | None, event: CartOpened | ProductAdded) -> Cart:
    if isinstance(event, CartOpened):
        return Cart(event.shopper)
    assert state is not None
    return Cart(state.shopper, (*state.products, event.product))


CART: Aggregate[Cart, CartOpened | ProductAdded] = Aggregate(
    "cart", Cart, (CartOpened, ProductAdded), evolve, owner=Owner("shopper", "shoppers", CartOpened, "shopper")
)


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    with patch.dict(AGGREGATES), patch.dict(EVENT_TYPES):
        register(CART)
        yield


@pytest.fixture
async def queries(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    async with running_query_service(settings) as client:
        yield client


async def append(connection: Connection, stream_id: str, after: int, *events: CartOpened | ProductAdded) -> int:
    """Each event a minute after the one before; the position of the last one."""
    new = [
        NewEvent(uuid4(), *codec.encode(event), "{}", NOON + timedelta(minutes=number))
        for number, event in enumerate(events, start=after)
    ]
    request = AppendRequest.of_stream(stream_id, after, uuid4(), new, owner=CART.owner_of(events[0]))
    (result,) = await event_log.append_group(connection, [request])
    return result.position


@pytest.mark.promise("queries", "Every registered aggregate has a history, time travel and live updates")
async def test_an_aggregate_has_a_history(queries: httpx.AsyncClient, connection: Connection) -> None:
    await append(connection, "cart-c-1", 0, CartOpened("ann"), ProductAdded("MUG"))

    history = (await queries.get("/carts/c-1/history")).json()

    assert history["cart_id"] == "c-1"
    assert [(event["version"], event["data"]) for event in history["events"]] == [
        (1, {"shopper": "ann"}),
        (2, {"product": "MUG"}),
    ]
    problem(await queries.get("/carts/c-2/history"), 404, "cart-not-found")


@pytest.mark.promise("queries", "Every registered aggregate has a history, time travel and live updates")
async def test_an_aggregate_without_a_read_model_is_shown_from_the_log_at_any_point_in_time(
    queries: httpx.AsyncClient, connection: Connection
) -> None:
    await append(connection, "cart-c-1", 0, CartOpened("ann"), ProductAdded("MUG"))
    opened = {"cart_id": "c-1", "shopper": "ann", "last_event_at": "2026-01-31T12:00:00Z", "version": 1}

    then = await queries.get("/carts/c-1", params={"as_of": "2026-01-31T12:00:30Z"})
    now = await queries.get("/carts/c-1")

    assert then.json() == opened | {"products": []}
    assert now.json() == opened | {"products": ["MUG"], "last_event_at": "2026-01-31T12:01:00Z", "version": 2}
    assert now.headers["etag"] == etag(2, now.headers["consistency-token"], 1)
    assert "projection-lag" in now.headers
    early = await queries.get("/carts/c-1", params={"as_of": "2026-01-31T11:59:59Z"})
    assert "no cart 'c-1' as of" in problem(early, 404, "cart-not-found")["detail"]
    problem(await queries.get("/carts/c-1?version=1"), 400, "malformed-query")


@pytest.mark.promise("queries", "Every registered aggregate has a history, time travel and live updates")
async def test_an_aggregate_and_those_of_one_owner_are_followed_live(
    queries: httpx.AsyncClient, connection: Connection
) -> None:
    await append(connection, "cart-c-1", 0, CartOpened("ann"))
    await append(connection, "cart-c-2", 0, CartOpened("bob"))
    async with (
        following(queries, "/carts/c-1/events") as one,
        following(queries, "/shoppers/ann/carts/events") as live,
        following(queries, "/shoppers/ann/carts/events?after=0") as past,
    ):
        for source in (one, live, past):
            await source.until_it_began()
        await append(connection, "cart-c-2", 1, ProductAdded("LAMP"))
        await append(connection, "order-c-1", 0, CartOpened("ann"))  # of another category
        await append(connection, "cart-c-3", 0, CartOpened("ann"))
        last = await append(connection, "cart-c-1", 1, ProductAdded("MUG"))
        for source in (one, live, past):
            await source.until_reached(last)

    def told(source: Any) -> list[tuple[str, int]]:
        return [(data["cart_id"], data["version"]) for _, data in source.messages]

    assert told(one) == [("c-1", 2)]
    assert told(live) == [("c-3", 1), ("c-1", 2)]
    assert told(past) == [("c-1", 1), ("c-3", 1), ("c-1", 2)]


# --- read models ---------------------------------------------------------------------------------------------------

router = APIRouter(tags=["toys"])


@router.get("/toys/{toy_id}")
@allowed(Role.STAFF)
async def get_toy(request: Request, toy_id: str) -> Response:
    _, toy, headers = await answer(request, TOYS, lambda reader, at_least: reader.document(toy_id, at_least))
    return Response(toy.body, 404 if toy.body is None else 200, headers)


def same(reader: CoalescingReader) -> CoalescingReader:
    return reader


TOYS = ReadModel("toys", in_redis, same, router, "toys", "Toys.", required=True)
KEYS = PartitionKeys("toys")


@pytest.mark.promise("queries", "A registered read model has tokens, lag, status and readiness")
async def test_a_read_model_is_read_with_tokens_measured_reported_and_waited_for_by_readiness(
    settings: Settings, connection: Connection, redis: Redis
) -> None:
    with patch.dict(READ_MODELS, clear=True):
        register_read_model(TOYS)
        async with running_query_service(settings) as client:
            problem(await client.get("/readyz"), 503, "not-ready")
            problem(await client.get("/toys/bear"), 503, "projection-rebuilding")
            await append(connection, "cart-c-1", 0, CartOpened("ann"))
            head = await event_log.read_head(connection)
            headers = {"Consistency-Token": head.token.encode(), "Prefer": "wait=20"}
            waiting = asyncio.create_task(client.get("/toys/bear", headers=headers))
            await write(redis, KEYS, head.position, {"bear": '{"fur": "brown"}'}, head.log_id)
            await write_heartbeat(redis, KEYS)
            await redis.publish(KEYS.channel, head.token.encode())

            toy = await waiting
            assert (toy.json(), toy.headers["consistency-token"]) == ({"fur": "brown"}, head.token.encode())
            assert (await client.get("/readyz")).status_code == 200
            (status,) = (await client.get("/projections")).json()["projections"]
            assert (status["name"], status["checkpoint"], status["position_lag"]) == ("toys", head.position, 0)

            async def is_current() -> bool:
                return (await client.get("/toys/bear")).headers["projection-lag"] == "0"

            await eventually(is_current)


def test_a_name_is_registered_once() -> None:
    with patch.dict(READ_MODELS), pytest.raises(ValueError, match="registered already"):
        register_read_model(READ_MODELS["orders"])
