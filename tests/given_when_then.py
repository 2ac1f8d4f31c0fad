"""One grammar for every level: given what happened, when a command comes, then what follows.

Pure rules:    given(placed(), paid()).when(ShipOrder(ORDER, "track-1")).then(OrderShipped("track-1"))
Over HTTP:     await orders.given(placed(), paid()).when("POST", "/shipment", {...}).then_acknowledged(shipped())
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from functools import reduce
from typing import Any, TypeAlias

import asyncpg
import httpx
import pytest

from command_service.domain.order import OrderCommand, decide
from shared.aggregates.order import ORDER, Order, OrderEvent, State, evolve
from shared.errors import OrdersError
from shared.eventstore import codec
from shared.eventstore import log as event_log
from shared.eventstore.log import StoredEvent
from shared.eventstore.token import ConsistencyToken
from tests.documented import assert_documented
from tests.orders import new_order_id
from tests.recording import put_in_log
from tests.sealed_events import open_events

Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


def fold(*events: OrderEvent) -> State:
    nothing: State = None
    return reduce(evolve, events, nothing)


# --- pure ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Decision:
    command: OrderCommand
    state: State

    def then(self, *expected: OrderEvent) -> Order | None:
        """The events that follow, exactly; answers the state after them."""
        assert decide(self.command, self.state) == list(expected)
        return reduce(evolve, expected, self.state)

    def then_nothing_changes(self) -> None:
        self.then()

    def then_refused(self, error: type[OrdersError], **data: object) -> None:
        with pytest.raises(error) as refusal:
            decide(self.command, self.state)
        assert type(refusal.value) is error
        assert {name: getattr(refusal.value, name) for name in data} == data


@dataclass(frozen=True)
class _Past:
    state: State

    def when(self, command: OrderCommand) -> _Decision:
        return _Decision(command, self.state)


def given(*events: OrderEvent) -> _Past:
    return _Past(fold(*events))


# --- over HTTP -----------------------------------------------------------------------------------------------------


def problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer as what the contract promises of every error; answers its members."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-correlation-id"]
    assert "Traceback" not in answer.text
    body: dict[str, Any] = answer.json()
    assert body["code"] == code, body
    assert body["status"] == status
    assert body["type"].endswith(code)
    assert all(isinstance(body[name], str) and body[name] for name in ("type", "title", "detail", "instance"))
    if status in (429, 503):
        assert int(answer.headers["retry-after"]) >= 1
    assert_documented(answer)
    return body


async def stored(connection: Connection, order_id: str) -> list[StoredEvent]:
    return [event async for event in event_log.read_stream(connection, ORDER.stream_of(order_id))]


async def events_of(connection: Connection, order_id: str) -> list[OrderEvent]:
    """With their sealed texts opened."""
    return await open_events(connection, [codec.decode(*event[4:7]) for event in await stored(connection, order_id)])


@dataclass(frozen=True)
class Request:
    orders: Orders
    order_id: str
    past: tuple[OrderEvent, ...]
    past_at: datetime | None
    method: str
    path: str
    body: Any
    headers: dict[str, str] = field(default_factory=dict)

    async def answer(self) -> httpx.Response:
        """Whatever the service answers."""
        if self.past:
            await put_in_log(self.orders.connection, ORDER.stream_of(self.order_id), *self.past, at=self.past_at)
        client = self.orders.client
        url = f"/orders/{self.order_id}{self.path}"
        return await client.request(self.method, url, json=self.body, headers=self.headers)

    async def then_acknowledged(self, *events: OrderEvent) -> httpx.Response:
        """200, and exactly these events were added to the order."""
        answer = await self.answer()
        assert answer.status_code == 200, answer.text
        history = await stored(self.orders.connection, self.order_id)
        assert await events_of(self.orders.connection, self.order_id) == [*self.past, *events]
        assert_acknowledges(answer, history[-1], (await event_log.read_head(self.orders.connection)).log_id.hex)
        return answer

    async def then_refused(self, status: int, code: str, **members: object) -> dict[str, Any]:
        """The problem, and nothing was added to the order."""
        answer = await self.answer()
        body = problem(answer, status, code)
        assert {name: body.get(name) for name in members} == members
        assert await events_of(self.orders.connection, self.order_id) == [*self.past]
        return body


def assert_acknowledges(answer: httpx.Response, event: StoredEvent, log_id: str) -> None:
    """The acknowledgement names that event, and says no more than the contract promises."""
    body = answer.json()
    position = body["position"]  # of the command's last event, which may be of another stream
    token = f"{log_id}-{position}"
    assert position - event.position in (0, 1)
    assert body == {
        "command_id": body["command_id"],
        "aggregate_id": event.stream_id.removeprefix("order-"),
        "version": event.version,
        "position": position,
        "consistency_token": token,
    }
    assert answer.headers["etag"] == f'"{event.version}"'
    assert answer.headers["consistency-token"] == token
    assert ConsistencyToken.decode(token).position == position


@dataclass(frozen=True)
class Given:
    orders: Orders
    past: tuple[OrderEvent, ...]
    past_at: datetime | None

    def when(self, method: str, path: str, body: Any = None, **headers: str) -> Request:
        """A request on a fresh order that has this past; `If_Match="3"` is the header If-Match."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return Request(self.orders, new_order_id(), self.past, self.past_at, method, path, body, named)


@dataclass(frozen=True)
class Orders:
    """Orders of a running command service, and the log behind it."""

    client: httpx.AsyncClient
    connection: Connection

    def given(self, *events: OrderEvent, at: datetime | None = None) -> Given:
        return Given(self, events, at)
