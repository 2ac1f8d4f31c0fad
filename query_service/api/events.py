"""Live updates: the events of an order, or of a customer's orders, as they happen."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Annotated, Any
from uuid import UUID

import msgspec
from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from query_service.api import event_stream
from query_service.api.event_stream import EventStream, cut_off
from query_service.api.history import RecordedEvent, as_stored, ask_log, not_found
from query_service.api.models import HISTORY_EXAMPLE
from query_service.api.requests import TOKEN_HEADERS, OrderId
from query_service.live.stream_filter import StreamFilter
from query_service.live.subscriptions import Subscriptions
from query_service.stream_history import ResumePoint
from shared.aggregates.aggregate import split_stream
from shared.aggregates.order import ORDER
from shared.errors import Malformed
from shared.eventstore.log import StoredEvent
from shared.eventstore.token import ConsistencyToken
from shared.http import problems
from shared.http.fields import Id
from shared.http.protocol import protocol_of
from shared.metrics import EVENT_STREAM_EVENTS
from shared.settings import Settings

CustomerId = Annotated[Id, Path(examples=["17850"])]
_LAST_POSITION = 2**63 - 1
_POSITION = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass
class MalformedEventId(Malformed):
    code = "malformed-event-id"
    title = "The Last-Event-ID cannot be read"

    @property
    def detail(self) -> str:
        return "The Last-Event-ID is not one of ours; send the id of the last event exactly as it was received."


class _Resume(BaseModel):
    model_config = ConfigDict(extra="forbid")
    after: int | None = Field(
        None,
        ge=0,
        le=_LAST_POSITION,
        description="Only events after this position of the log; 0: from the beginning. Without it: from now on."
        " `Last-Event-ID` goes before it.",
        examples=[0],
    )


class _LiveEvent(RecordedEvent):
    """As in the order's history, and what a reader of one event alone would miss."""

    order_id: str
    consistency_token: str


def _json(log_id: UUID, event: StoredEvent) -> bytes:
    token = ConsistencyToken(log_id, event.position).encode()
    recorded = msgspec.structs.asdict(as_stored(event))
    _, order_id = split_stream(event.stream_id)
    return msgspec.json.encode(_LiveEvent(**recorded, order_id=order_id, consistency_token=token))


async def _room(request: Request) -> AsyncIterator[None]:
    """One stream's, until its response has ended. Raises `TooManyStreams`."""
    subscriptions: Subscriptions = request.app.state.subscriptions
    with subscriptions.slot():
        yield


router = APIRouter(tags=["live updates"], dependencies=[Depends(_room)])

_EXAMPLE = (
    event_stream.opening(1_233, 2_000)
    + event_stream.event(
        1_234,
        json.dumps(
            {
                **HISTORY_EXAMPLE["events"][0],
                "order_id": "536365",
                "consistency_token": "9f0c2a3b4d5e6f708192a3b4c5d6e7f8-1234",
            },
            separators=(",", ":"),
        ).encode(),
    )
    + event_stream.heartbeat(1_240)
).decode()

_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The stream. It ends when the service stops or the client does not read on.",
        "headers": {
            "Consistency-Token": {"description": "The end of the log when it began.", "schema": {"type": "string"}},
            "Preference-Applied": {"description": "The wait that was granted.", "schema": {"type": "string"}},
        },
        "content": {event_stream.MEDIA_TYPE: {"schema": {"type": "string"}, "example": _EXAMPLE}},
    }
}
_PROBLEMS = (
    (400, "malformed-event-id", "The Last-Event-ID is not one of ours."),
    (400, "unknown-position", "The log does not reach as far as Last-Event-ID or `after`."),
    (400, "malformed-token", "The Consistency-Token is not one of ours."),
    (400, "unknown-log", "The Consistency-Token belongs to another event log."),
    (422, "invalid-request", "A parameter is not acceptable or unknown."),
    (503, "too-many-streams", "This process offers no more streams."),
    (503, "projection-lagging", "The copy of the log did not reach the Consistency-Token in time."),
    (503, "log-unavailable", "PostgreSQL does not answer."),
)
_LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "The last id that was received: the stream goes on after it. Browsers send it by themselves.",
    "schema": {"type": "string"},
    "example": "1234",
}
_DESCRIPTION = (
    "Server-sent events, in the order of the log, each once. `id` is the event's position, `data` the event as in the"
    " order's history, with `order_id` and a `consistency_token` with which every query shows it. Begins after"
    " `Last-Event-ID`, after `after`, or now.\n\n"
    "A stream that is quiet sends a comment and the position it has reached as `id`, so that a client resumes from"
    " there and the log need not be read again. A client that does not read is cut off; it has missed nothing when it"
    " comes back with its last id."
)


@router.get(
    "/orders/{order_id}/events",
    summary="What happens to an order, live",
    description=_DESCRIPTION,
    response_class=Response,
    responses={
        **_STREAM,
        **problems.responses(
            *_PROBLEMS, (404, "order-not-found", "There is no such order; Consistency-Token says as of when.")
        ),
    },
    openapi_extra={"parameters": [_LAST_EVENT_ID, *TOKEN_HEADERS]},
)
async def follow_order(request: Request, order_id: OrderId, resume: Annotated[_Resume, Query()]) -> Response:
    start, headers = await _start(request, order_id, resume)
    if start is None:
        return not_found(request, f"There is no order {order_id!r}.", headers)
    return _stream(request, StreamFilter("order", order_id), start, headers)


@router.get(
    "/customers/{customer_id}/orders/events",
    summary="What happens to a customer's orders, live",
    description=f"Of all orders that the customer placed or will place. {_DESCRIPTION}",
    response_class=Response,
    responses={**_STREAM, **problems.responses(*_PROBLEMS)},
    openapi_extra={"parameters": [_LAST_EVENT_ID, *TOKEN_HEADERS]},
)
async def follow_customer(request: Request, customer_id: CustomerId, resume: Annotated[_Resume, Query()]) -> Response:
    start, headers = await _start(request, None, resume)
    assert start is not None, "there is no order that might be missing"
    return _stream(request, StreamFilter("customer", customer_id), start, headers)


async def _start(request: Request, order_id: str | None, resume: _Resume) -> tuple[ResumePoint | None, dict[str, str]]:
    after = _position(request, resume)
    stream = None if order_id is None else ORDER.stream_of(order_id)
    return await ask_log(request, lambda history, token, wait: history.resume_point(stream, after, token, wait))


def _stream(request: Request, subject: StreamFilter, start: ResumePoint, headers: dict[str, str]) -> Response:
    settings: Settings = request.app.state.settings
    too_slow = partial(cut_off, protocol_of(request.scope))
    blocks = _blocks(request.app.state.subscriptions, subject, start, settings.sse_heartbeat_seconds, too_slow)
    return EventStream(blocks, settings.sse_send_seconds, headers)


async def _blocks(
    feed: Subscriptions, subject: StreamFilter, start: ResumePoint, quiet_seconds: float, too_slow: Callable[[], None]
) -> AsyncGenerator[bytes, None]:
    yield event_stream.opening(start.position)
    said_at = monotonic()
    async with aclosing(feed.follow(subject, *start, quiet_seconds, too_slow)) as progress:
        async for events, position in progress:
            for event in events:
                yield event_stream.event(event.position, _json(start.log_id, event))
                EVENT_STREAM_EVENTS.inc()
            # While the past is searched there is progress all the time, which need not all be told.
            if not events and monotonic() - said_at > quiet_seconds / 2:
                yield event_stream.heartbeat(position)
            elif not events:
                continue
            said_at = monotonic()


def _position(request: Request, resume: _Resume) -> int | None:
    """Where the client wants to go on; None: from now on. Raises `MalformedEventId`."""
    last = request.headers.get("last-event-id")
    if last is None:
        return resume.after
    if _POSITION.fullmatch(last) is None or int(last) > _LAST_POSITION:
        raise MalformedEventId
    return int(last)
