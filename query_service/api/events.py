"""Live updates of every registered aggregate: the events of one, or of all that belong to one owner.

Without `from __future__ import annotations`: the annotations of a route name the id of its aggregate.
"""

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable
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
from query_service.api.history import AnyAggregate, as_stored
from query_service.api.log_queries import UNAVAILABLE, ask_log, not_found, not_found_code
from query_service.api.models import event_example
from query_service.api.requests import TOKEN_HEADERS
from query_service.live.stream_filter import EventBatch, StreamFilter
from query_service.live.subscriptions import Subscriptions, TooManyStreams
from query_service.stream_history import ResumePoint, UnknownPosition
from shared.aggregates.aggregate import Owner, split_stream
from shared.errors import Malformed
from shared.eventstore.log import StoredEvent
from shared.eventstore.token import ConsistencyToken
from shared.http.fields import Id
from shared.http.openapi import Described, responses
from shared.http.protocol import protocol_of
from shared.identity.access import allowed
from shared.identity.caller import Role
from shared.metrics import EVENT_STREAM_EVENTS
from shared.settings import Settings

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
        " `Last-Event-ID` takes precedence.",
        examples=[0],
    )


async def _slot(request: Request) -> AsyncIterator[None]:
    """One event stream's slot, until its response has ended. Raises `TooManyStreams`."""
    subscriptions: Subscriptions = request.app.state.subscriptions
    with subscriptions.slot():
        yield


_PROBLEMS: tuple[Described, ...] = (
    (MalformedEventId(), "The Last-Event-ID is not one of ours."),
    (UnknownPosition(2_000, 1_234), "The log does not reach as far as Last-Event-ID or `after`."),
    *UNAVAILABLE,
    (422, "invalid-request", "A parameter is not acceptable."),
    (TooManyStreams(1_000), "This process offers no more streams."),
)
_LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "required": False,
    "description": "The last id that the client received: the stream continues after it. Browsers send it themselves.",
    "schema": {"type": "string"},
    "example": "1234",
}


def events_router(aggregates: Iterable[AnyAggregate]) -> APIRouter:
    """The routes of all aggregates."""
    router = APIRouter(tags=["live updates"], dependencies=[Depends(_slot)])
    for aggregate in aggregates:
        _add_events(router, aggregate)
        if aggregate.owner is not None:
            _add_events_of_owner(router, aggregate, aggregate.owner)
    return router


def _add_events(router: APIRouter, aggregate: AnyAggregate) -> None:
    noun = aggregate.noun

    @router.get(
        f"/{aggregate.collection}/{{{aggregate.id_field}}}/events",
        name=f"follow {noun}",
        summary=f"The events of one {noun}, live",
        description=_description(aggregate),
        response_class=Response,
        responses={
            **_stream_response(aggregate),
            **responses(
                *_PROBLEMS,
                (404, not_found_code(aggregate), f"There is no such {noun}; Consistency-Token says as of when."),
            ),
        },
        openapi_extra={"parameters": [_LAST_EVENT_ID, *TOKEN_HEADERS], "x-event-stream": True},
    )
    @allowed(Role.STAFF, Role.FINANCE, Role.AUDITOR, Role.SERVICE)
    async def follow(
        request: Request,
        aggregate_id: Annotated[Id, Path(alias=aggregate.id_field, description=f"of the {noun}", examples=["536365"])],
        resume: Annotated[_Resume, Query()],
    ) -> Response:
        start, headers = await _resume_point(request, aggregate.stream_of(aggregate_id), resume)
        if start is None:
            return not_found(request, aggregate, f"There is no {noun} {aggregate_id!r}.", headers)
        return _stream(request, aggregate, StreamFilter(aggregate.category, aggregate_id), start, headers)


def _add_events_of_owner(router: APIRouter, aggregate: AnyAggregate, owner: Owner) -> None:
    @router.get(
        f"/{owner.plural}/{{{owner.noun}_id}}/{aggregate.collection}/events",
        name=f"follow {owner.noun} {aggregate.collection}",
        summary=f"The events of all {aggregate.collection} of one {owner.noun}, live",
        description=f"Also of {aggregate.collection} that begin later. {_description(aggregate)}",
        response_class=Response,
        responses={**_stream_response(aggregate), **responses(*_PROBLEMS)},
        openapi_extra={"parameters": [_LAST_EVENT_ID, *TOKEN_HEADERS], "x-event-stream": True},
    )
    @allowed(Role.STAFF, Role.FINANCE, Role.AUDITOR, Role.SERVICE)
    async def follow_owner(
        request: Request,
        owner_id: Annotated[Id, Path(alias=f"{owner.noun}_id", examples=["17850"])],
        resume: Annotated[_Resume, Query()],
    ) -> Response:
        start, headers = await _resume_point(request, None, resume)
        assert start is not None, "without a stream there is none that might be missing"
        return _stream(request, aggregate, StreamFilter(aggregate.category, owner_id, by_owner=True), start, headers)


def _description(aggregate: AnyAggregate) -> str:
    return (
        "Server-sent events, in the order of the log, each once. `id` is the event's position, `data` the event as in"
        f" the history of the {aggregate.noun}, with `{aggregate.id_field}` and a `consistency_token` with which every"
        " query shows it. Begins after `Last-Event-ID`, after `after`, or now.\n\n"
        "A quiet stream sends a comment with the position that it has reached as `id`, from which a client can resume."
        " The service closes the connection of a client that does not read; the client misses nothing when it resumes"
        " with its last id."
    )


def _stream_response(aggregate: AnyAggregate) -> dict[int | str, dict[str, Any]]:
    token = "9f0c2a3b4d5e6f708192a3b4c5d6e7f8-1234"  # noqa: S105 - an example of a position in the log
    event = {**event_example(aggregate), aggregate.id_field: "536365", "consistency_token": token}
    example = (
        event_stream.opening(1_233, 2_000)
        + event_stream.event(1_234, json.dumps(event, separators=(",", ":")).encode())
        + event_stream.heartbeat(1_240)
    ).decode()
    text = {"schema": {"type": "string"}}
    return {
        200: {
            "description": "The stream. It ends when the service stops or the client does not read on.",
            "headers": {
                "Consistency-Token": {"description": "The end of the log when the stream began.", **text},
                "Preference-Applied": {"description": "The wait that was granted.", **text},
            },
            "content": {event_stream.MEDIA_TYPE: {**text, "example": example}},
        }
    }


async def _resume_point(
    request: Request, stream_id: str | None, resume: _Resume
) -> tuple[ResumePoint | None, dict[str, str]]:
    after = _position(request, resume)
    return await ask_log(request, lambda history, *wait: history.resume_point(stream_id, after, *wait))


def _stream(
    request: Request, aggregate: AnyAggregate, of: StreamFilter, start: ResumePoint, headers: dict[str, str]
) -> Response:
    settings: Settings = request.app.state.settings
    subscriptions: Subscriptions = request.app.state.subscriptions
    quiet_seconds = settings.sse_heartbeat_seconds
    too_slow = partial(cut_off, protocol_of(request.scope))
    batches = subscriptions.follow(of, *start, quiet_seconds, too_slow)
    blocks = _blocks(batches, start, quiet_seconds, partial(_event_json, aggregate.id_field, start.log_id))
    return EventStream(blocks, settings.sse_send_seconds, headers)


async def _blocks(
    batches: AsyncGenerator[EventBatch, None],
    start: ResumePoint,
    quiet_seconds: float,
    as_json: Callable[[StoredEvent], bytes],
) -> AsyncGenerator[bytes, None]:
    yield event_stream.opening(start.position)
    sent_at = monotonic()
    async with aclosing(batches):
        async for events, position in batches:
            for event in events:
                yield event_stream.event(event.position, as_json(event))
                EVENT_STREAM_EVENTS.inc()
            # A search of the past yields empty batches all the time; only some become heartbeats.
            if not events and monotonic() - sent_at > quiet_seconds / 2:
                yield event_stream.heartbeat(position)
            elif not events:
                continue
            sent_at = monotonic()


def _event_json(id_field: str, log_id: UUID, event: StoredEvent) -> bytes:
    """The event as in the history, with the aggregate's id and the token that shows it."""
    _, aggregate_id = split_stream(event.stream_id)
    token = ConsistencyToken(log_id, event.position).encode()
    recorded = msgspec.structs.asdict(as_stored(event))
    return msgspec.json.encode({**recorded, id_field: aggregate_id, "consistency_token": token})


def _position(request: Request, resume: _Resume) -> int | None:
    """The position after which the client resumes; None: from now on. Raises `MalformedEventId`."""
    last = request.headers.get("last-event-id")
    if last is None:
        return resume.after
    if _POSITION.fullmatch(last) is None or int(last) > _LAST_POSITION:
        raise MalformedEventId
    return int(last)
