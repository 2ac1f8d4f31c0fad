"""Queries for the past: an order's events, and the order as it was at an earlier time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any, TypeVar
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from fastapi import APIRouter, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from starlette.responses import Response

from query_service import time_travel
from query_service.api.dependencies import queries_of
from query_service.api.lag_header import answer_from_log
from query_service.api.models import OrderHistory
from query_service.api.requests import (
    IF_NONE_MATCH,
    NOT_MODIFIED,
    TOKEN_HEADERS,
    OrderId,
    answer_headers,
    preferred_wait,
    unless_known,
)
from query_service.point_in_time import CLOCK_TOLERANCE, PointInTime, rfc3339
from query_service.stream_history import StreamHistory
from shared.aggregates.order import stream_of
from shared.errors import Invalid
from shared.eventstore.log import Head, StoredEvent
from shared.eventstore.token import ConsistencyToken
from shared.http import problems
from shared.http.fields import Rfc3339

_LAST_VERSION = 2**31 - 1

T = TypeVar("T")
router = APIRouter(tags=["history"])

TIME_IN_THE_FUTURE = (422, "time-in-the-future", "as_of or known_at is more than a minute ahead of us.")
_NOT_NOW = (
    (400, "malformed-token", "The Consistency-Token is not one of ours."),
    (400, "unknown-log", "The Consistency-Token belongs to another event log."),
    (503, "projection-lagging", "The copy of the log did not reach the Consistency-Token in time."),
    (503, "log-unavailable", "PostgreSQL does not answer."),
)


def _time_parameter(name: str, description: str) -> dict[str, Any]:
    return {
        "name": name,
        "in": "query",
        "required": False,
        "description": f"{description} RFC 3339; in a URL, the `+` of an offset is written `%2B`.",
        "schema": {"type": "string", "format": "date-time"},
        "example": "2026-01-31T14:30:00Z",
    }


# Read from the request by `answer_order_then`, so that a query without them pays nothing; documented here.
TIMES = [
    _time_parameter("as_of", "The order as of this time, as far as is known now: events that had occurred by then."),
    _time_parameter("known_at", "As far as was known at this time: events that had been recorded by then."),
]


@dataclass
class TimeInTheFuture(Invalid):
    """`errors` points at the parameter, as for every 422."""

    errors: list[dict[str, str]] = field(default_factory=list)
    code = "time-in-the-future"
    title = "The given time has not come yet"

    @property
    def detail(self) -> str:
        return " ".join(error["detail"] for error in self.errors)


class _Times(BaseModel):
    model_config = ConfigDict(extra="forbid")
    as_of: Rfc3339 | None = None
    known_at: Rfc3339 | None = None


class _Paging(BaseModel):
    model_config = ConfigDict(extra="forbid")
    after_version: int = Field(0, ge=0, le=_LAST_VERSION, description="only events after this version of the order")
    limit: int = Field(1_000, ge=1, le=1_000, description="events on a page")


class RecordedEvent(msgspec.Struct):
    """`models.StoredEvent`. Each JSON text is passed on as it was stored and hashed: neither upcast nor parsed."""

    version: int
    position: int
    event_id: UUID
    event_type: str
    schema_version: int
    occurred_at: datetime
    recorded_at: datetime
    data: msgspec.Raw
    metadata: msgspec.Raw
    hash: str


def as_stored(event: StoredEvent) -> RecordedEvent:
    return RecordedEvent(
        event.version,
        event.position,
        event.event_id,
        event.event_type,
        event.schema_version,
        event.occurred_at,
        event.recorded_at,
        msgspec.Raw(event.data),
        msgspec.Raw(event.metadata),
        event.hash.hex(),
    )


@router.get(
    "/orders/{order_id}/history",
    summary="Everything that happened to an order",
    description="Its events, oldest first, **as stored**: `data` and `metadata` are the very JSON that was hashed, so"
    " an old event has the shape of its `schema_version`. Read from the log (or a replica), not from a read model.",
    response_model=OrderHistory,
    responses={
        200: {
            "description": "A page of events",
            "headers": {
                **answer_headers('"3"'),
                "Link": {"schema": {"type": "string"}, "description": '`rel="next"`: the next page'},
            },
        },
        **NOT_MODIFIED,
        **problems.responses(
            *_NOT_NOW,
            (404, "order-not-found", "There is no such order; Consistency-Token says as of when."),
            (422, "invalid-request", "A parameter is not acceptable or unknown."),
        ),
    },
    openapi_extra={"parameters": [*TOKEN_HEADERS, IF_NONE_MATCH]},
)
async def get_history(request: Request, order_id: OrderId, paging: Annotated[_Paging, Query()]) -> Response:
    page, headers = await ask_log(
        request,
        lambda history, token, wait: history.events(
            stream_of(order_id), paging.after_version, paging.limit, token, wait
        ),
    )
    if page is None:
        return not_found(request, f"There is no order {order_id!r}.", headers)
    after = page.events[-1].version if page.more else None
    if after is not None:
        query = urlencode({"after_version": after, "limit": paging.limit})
        headers["Link"] = f'<{request.url.path}?{query}>; rel="next"'
    events = [as_stored(event) for event in page.events]
    body = msgspec.json.encode({"order_id": order_id, "events": events, "next_after_version": after})
    return unless_known(request, body, f'"{page.version}"', headers)


async def answer_order_then(request: Request, order_id: str) -> Response:
    """Answers `GET /orders/{order_id}` with query parameters: the order at an earlier time."""
    answer_from_log(request)
    point = _point(request, datetime.now(UTC))
    past, headers = await ask_log(
        request, lambda history, *wait: history.fold(stream_of(order_id), point, time_travel.after, *wait)
    )
    if past is None:
        return not_found(request, f"There was no order {order_id!r} {point}.", headers)
    body = msgspec.json.encode(time_travel.document(order_id, past))
    return unless_known(request, body, f'"{past.version}"', headers)


def _point(request: Request, now: datetime) -> PointInTime:
    """Raises 422 for whatever is not a time that has come."""
    given = request.query_params
    if repeated := [name for name in given if len(given.getlist(name)) > 1]:
        raise RequestValidationError(
            [{"type": "repeated", "loc": ("query", name), "msg": "Input should be given once"} for name in repeated]
        )
    try:
        times = _Times.model_validate(dict(given))
    except ValidationError as error:
        found = [{**one, "loc": ("query", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(found) from error
    point = PointInTime(times.as_of, times.known_at)
    early = [
        {"pointer": f"query/{name}", "detail": f"{name} {rfc3339(time)} is later than now ({rfc3339(now)})."}
        for name, time in point._asdict().items()
        if time is not None and time > now + CLOCK_TOLERANCE
    ]
    if early:
        raise TimeInTheFuture(early)
    return point


async def ask_log(
    request: Request, ask: Callable[[StreamHistory, ConsistencyToken | None, float], Awaitable[tuple[Head, T]]]
) -> tuple[T, dict[str, str]]:
    """What the log answers, once it has reached the request's token, and the headers that every answer carries."""
    header = request.headers.get("consistency-token")
    token = None if header is None else ConsistencyToken.decode(header)
    preferred = preferred_wait(request.headers.get("prefer"))
    wait = queries_of(request).token_wait_seconds if preferred is None else preferred
    head, value = await ask(request.app.state.history, token, wait)
    headers = {"Consistency-Token": head.token.encode()}
    if token is not None and preferred is not None:
        headers["Preference-Applied"] = f"wait={preferred}"
    return value, headers


def not_found(request: Request, detail: str, headers: dict[str, str]) -> Response:
    return problems.problem(404, "order-not-found", "There is no such order", detail, request.url.path, headers)
