"""Live updates: the events of one aggregate, of all that belong to one owner, or of the whole log.

Without `from __future__ import annotations`: the annotations of a route name the id of its aggregate.
"""

import json
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable
from contextlib import AbstractContextManager, aclosing
from dataclasses import dataclass
from functools import partial
from time import monotonic
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Depends, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field
from starlette.responses import Response

from query_service.api import event_stream
from query_service.api.event_documents import AnyAggregate, event_json, example_of, reference_to
from query_service.api.event_stream import EventStream, cut_off
from query_service.api.log_queries import UNAVAILABLE, ask_log, not_found, not_found_code, readers_of
from query_service.api.requests import TOKEN_HEADERS, answer_headers
from query_service.client_limit import ClientLimitReached
from query_service.live.held_events import HeldByStream
from query_service.live.stream_filter import WHOLE_LOG, EventBatch, StreamFilter
from query_service.live.subscriptions import Subscriptions, TooManyStreams
from query_service.stream_history import ResumePoint, UnknownPosition
from shared.aggregates.aggregate import Owner
from shared.errors import Malformed
from shared.eventstore.token import ConsistencyToken
from shared.http.client import client_of
from shared.http.event_streams import MEDIA_TYPE
from shared.http.fields import AnyId, Id
from shared.http.openapi import Described, responses
from shared.http.protocol import protocol_of
from shared.identity.access import allowed, caller_of, check_owner, limited_to_owner
from shared.identity.caller import ForeignOwner, Role
from shared.metrics import EVENT_STREAM_EVENTS
from shared.settings import Settings

TAG = "live updates"
DESCRIPTION = """\
Server-sent events, in the order of the log, each once. Needs no Redis. `id` is the event's position, `data` the event
in today's shape, with a `consistency_token` with which every query shows it. A stream begins after `Last-Event-ID`,
after `after`, or now.

A quiet stream sends a comment with the position that it has reached as `id`, from which a client can resume. The
service closes the connection of a client that does not read; the client misses nothing when it resumes with its last
id. With `AUTH=jwt` the stream ends when the caller's token expires; the client follows on with a new token and its last
id.

A client that sends `Accept: text/event-stream`, as browsers do, gets what is 429 or 503 for others as a stream with one
event, `problem`, that says when to come back (`retry`) and ends.
"""
_LAST_POSITION = 2**63 - 1
_POSITION = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


@dataclass
class MalformedEventId(Malformed):
    code = "malformed-event-id"
    title = "The Last-Event-ID cannot be read"

    @property
    def detail(self) -> str:
        return "The Last-Event-ID is not one of ours; send the id of the last event exactly as it was received."


def _asks_for_stream(request: Request) -> bool:
    return MEDIA_TYPE in request.headers.get("accept", "")


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


class _LogPage(_Resume):
    limit: int = Field(100, ge=1, le=1_000, description="most events on a page of JSON", examples=[100])


async def _slot(request: Request) -> AsyncIterator[HeldByStream]:
    """One event stream's slot, until its response has ended. Raises `TooManyStreams` and `ClientLimitReached`."""
    with _open_slot(request) as held:
        yield held


async def _slot_of_stream(request: Request) -> AsyncIterator[HeldByStream | None]:
    """The same; None for a page of JSON."""
    if _asks_for_stream(request):
        with _open_slot(request) as held:
            yield held
    else:
        yield None


def _open_slot(request: Request) -> AbstractContextManager[HeldByStream]:
    subscriptions: Subscriptions = request.app.state.subscriptions
    return subscriptions.slot(client_of(request.scope), partial(cut_off, protocol_of(request.scope)))


_Held = Annotated[HeldByStream, Depends(_slot)]

_PROBLEMS: tuple[Described, ...] = (
    (MalformedEventId(), "The Last-Event-ID is not one of ours."),
    (UnknownPosition(2_000, 1_234), "The log does not reach as far as Last-Event-ID or `after`."),
    *UNAVAILABLE,
    (422, "invalid-request", "A parameter is not acceptable."),
    (ClientLimitReached("event streams", 200), "The client has too many streams open."),
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
    """The routes of the log, and of all aggregates."""
    aggregates = [*aggregates]
    router = APIRouter(tags=[TAG])
    _add_log(router, aggregates)
    for aggregate in aggregates:
        _add_events(router, aggregate)
        # Where it is its own owner, its events are all there are.
        if aggregate.owner is not None and aggregate.owner.noun != aggregate.category:
            _add_events_of_owner(router, aggregate, aggregate.owner)
    return router


def _add_log(router: APIRouter, aggregates: list[AnyAggregate]) -> None:
    example = {"events": [example_of(aggregate) for aggregate in aggregates[:1]], "next_after": 1_234}
    event = reference_to(None)
    page = {
        "type": "object",
        "required": ["events", "next_after"],
        "properties": {
            "events": {"type": "array", "items": event},
            "next_after": {"type": "integer", "description": "as `after`, it asks for the events after this page"},
        },
    }
    streamed = _stream_response(event, example_of(aggregates[0]) if aggregates else {})[200]

    @router.get(
        "/events",
        name="follow log",
        summary="All events of the log, in pages or live",
        description="Pages of JSON, from `after` or from the beginning; with `Accept: text/event-stream`, a stream:\n\n"
        + _follow("/events", " -H 'Accept: text/event-stream'"),
        response_class=Response,
        responses={
            200: {
                **streamed,
                "description": "A page, or the stream.",
                "headers": answer_headers(),
                "content": {"application/json": {"schema": page, "example": example}, **streamed["content"]},
            },
            **responses(*_PROBLEMS),
        },
        openapi_extra={"parameters": [_LAST_EVENT_ID, *TOKEN_HEADERS]},
    )
    @allowed(Role.STAFF, Role.AUDITOR, Role.SERVICE)
    async def follow_log(
        request: Request,
        resume: Annotated[_LogPage, Query()],
        held: Annotated[HeldByStream | None, Depends(_slot_of_stream)],
    ) -> Response:
        if held is None:
            return await _log_page(request, resume)
        start, headers = await _resume_point(request, None, resume)
        assert start is not None, "without a stream there is none that might be missing"
        return _stream(request, WHOLE_LOG, start, held, headers)


async def _log_page(request: Request, asked: _LogPage) -> Response:
    after = _position(request, asked) or 0
    page, headers = await ask_log(request, lambda history, *how: history.log_page(after, asked.limit, *how))
    log_id = ConsistencyToken.decode(headers["Consistency-Token"]).log_id
    next_after = page.events[-1].position if page.events else after
    if page.more:
        query = urlencode({"after": next_after, "limit": asked.limit})
        headers["Link"] = f'<{request.url.path}?{query}>; rel="next"'
    events = b",".join([event_json(log_id, event) for event in page.events])
    return Response(b'{"events":[%b],"next_after":%d}' % (events, next_after), 200, headers, "application/json")


def _add_events(router: APIRouter, aggregate: AnyAggregate) -> None:
    noun = aggregate.noun

    @router.get(
        f"/{aggregate.collection}/{{{aggregate.id_field}}}/events",
        name=f"follow {noun}",
        summary=f"The events of one {noun}, live",
        description="Begins with the next event, or after `after`.\n\n"
        + _follow(f"/{aggregate.collection}/{aggregate.example_id}/events"),
        response_class=Response,
        responses={
            **_stream_response(reference_to(aggregate), example_of(aggregate)),
            **responses(
                *_PROBLEMS,
                (404, not_found_code(aggregate), f"There is no such {noun}; Consistency-Token says as of when."),
            ),
        },
        openapi_extra={"parameters": [_LAST_EVENT_ID, *TOKEN_HEADERS], "x-event-stream": True},
    )
    @allowed(*readers_of(aggregate))
    async def follow(
        request: Request,
        aggregate_id: Annotated[
            AnyId,
            Path(
                alias=aggregate.id_field,
                description=f"of the {noun}",
                examples=[aggregate.example_id],
                max_length=aggregate.max_id_length,
            ),
        ],
        resume: Annotated[_Resume, Query()],
        held: _Held,
    ) -> Response:
        start, headers = await _resume_point(request, aggregate.stream_of(aggregate_id), resume)
        if start is None:
            return not_found(request, aggregate, f"There is no {noun} {aggregate_id!r}.", headers)
        return _stream(request, StreamFilter(aggregate.category, aggregate_id), start, held, headers)


def _add_events_of_owner(router: APIRouter, aggregate: AnyAggregate, owner: Owner) -> None:
    @router.get(
        f"/{owner.plural}/{{{owner.noun}_id}}/{aggregate.collection}/events",
        name=f"follow {owner.noun} {aggregate.collection}",
        summary=f"The events of all {aggregate.collection} of one {owner.noun}, live",
        description=f"Also of {aggregate.collection} that begin later.\n\n"
        + _follow(f"/{owner.plural}/{owner.example_id}/{aggregate.collection}/events"),
        response_class=Response,
        responses={
            **_stream_response(reference_to(aggregate), example_of(aggregate)),
            **responses(*_PROBLEMS, (ForeignOwner(owner.noun, "13047"), f"The caller is another {owner.noun}.")),
        },
        openapi_extra={"parameters": [_LAST_EVENT_ID, *TOKEN_HEADERS], "x-event-stream": True},
    )
    @allowed(*readers_of(aggregate))
    async def follow_owner(
        request: Request,
        owner_id: Annotated[Id, Path(alias=f"{owner.noun}_id", examples=[owner.example_id])],
        resume: Annotated[_Resume, Query()],
        held: _Held,
    ) -> Response:
        check_owner(request.scope, owner.noun, owner_id)
        start, headers = await _resume_point(request, None, resume)
        assert start is not None, "without a stream there is none that might be missing"
        return _stream(request, StreamFilter(aggregate.category, owner_id, by_owner=True), start, held, headers)


def _follow(path: str, options: str = "") -> str:
    """For the description of an operation: a stream never ends, so the reference page does not load it."""
    return f"```sh\ncurl -N 'http://localhost:8002{path}?after=0'{options}\n```"


def _stream_response(event: dict[str, str], data: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    example = (
        event_stream.opening(1_233, 2_000)
        + event_stream.event(1_234, json.dumps(data, separators=(",", ":")).encode())
        + event_stream.heartbeat(1_240)
    ).decode()
    text = {"schema": {"type": "string"}}
    # The schema of `data` in each block: OpenAPI 3.1 has no keyword for the items of a stream.
    stream = {"schema": {"type": "string", "contentMediaType": "application/json", "contentSchema": event}}
    return {
        200: {
            "description": "The stream. It ends when the service stops, the client does not read on, or its token"
            " expires.",
            "headers": {
                "Consistency-Token": {"description": "The end of the log when the stream began.", **text},
                "Preference-Applied": {"description": "The wait that was granted.", **text},
            },
            "content": {MEDIA_TYPE: {**stream, "example": example}},
        }
    }


async def _resume_point(
    request: Request, stream_id: str | None, resume: _Resume
) -> tuple[ResumePoint | None, dict[str, str]]:
    after = _position(request, resume)
    owner = limited_to_owner(request.scope)
    return await ask_log(request, lambda history, *asked: history.resume_point(stream_id, owner, after, *asked))


def _stream(
    request: Request, of: StreamFilter, start: ResumePoint, held: HeldByStream, headers: dict[str, str]
) -> Response:
    settings: Settings = request.app.state.settings
    subscriptions: Subscriptions = request.app.state.subscriptions
    quiet_seconds = settings.sse_heartbeat_seconds
    batches = subscriptions.follow(of, *start, quiet_seconds, client_of(request.scope), held)
    caller = caller_of(request.scope)
    until = None if caller is None else caller.expires_at
    return EventStream(_blocks(batches, start, quiet_seconds), held, settings.sse_send_seconds, headers, until)


async def _blocks(
    batches: AsyncGenerator[EventBatch, None], start: ResumePoint, quiet_seconds: float
) -> AsyncGenerator[bytes, None]:
    yield event_stream.opening(start.position)
    sent_at = monotonic()
    async with aclosing(batches):
        async for events, position in batches:
            count = len(events)
            for number in range(count):  # no name for an event: it would stay in memory while the stream waits
                yield event_stream.event(events[number].position, event_json(start.log_id, events[number]))
                EVENT_STREAM_EVENTS.inc()
            del events
            # A stream that waits to read the past yields empty batches all the time; only some become heartbeats.
            if not count and monotonic() - sent_at > quiet_seconds / 2:
                yield event_stream.heartbeat(position)
            elif not count:
                continue
            sent_at = monotonic()


def _position(request: Request, resume: _Resume) -> int | None:
    """The position after which the client resumes; None: from now on. Raises `MalformedEventId`."""
    last = request.headers.get("last-event-id")
    if last is None:
        return resume.after
    if _POSITION.fullmatch(last) is None or int(last) > _LAST_POSITION:
        raise MalformedEventId
    return int(last)
