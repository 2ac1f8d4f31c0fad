"""Routes of every registered aggregate: its stored events, and its state at an earlier time.

Without `from __future__ import annotations`: the annotations of a route name the id of its aggregate.
"""

from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Annotated, Any, TypeAlias
from urllib.parse import urlencode
from uuid import UUID

import msgspec
from fastapi import APIRouter, Path, Query, Request
from pydantic import BaseModel, ConfigDict, Field, create_model
from starlette.responses import Response

from query_service import time_travel
from query_service.api.log_queries import (
    TIME_IN_THE_FUTURE,
    TIMES,
    UNAVAILABLE,
    answer_past_state,
    ask_log,
    not_found,
    not_found_code,
    readers_of,
)
from query_service.api.models import EventDocument, event_example
from query_service.api.requests import (
    ETAG_EXAMPLE,
    IF_NONE_MATCH,
    NOT_MODIFIED,
    TOKEN_HEADERS,
    answer_headers,
    unless_known,
)
from shared.aggregates.aggregate import Aggregate
from shared.eventstore.log import StoredEvent
from shared.http.etags import etag_of
from shared.http.fields import AnyId
from shared.http.openapi import UNREADABLE, responses
from shared.identity.access import allowed, limited_to_owner

TAG = "history"
DESCRIPTION = """\
The events of an aggregate, and its state at an earlier time, from the log itself or a replica of it. Needs no Redis.

`data` and `metadata` of a stored event are the very JSON that was hashed, so an old event has the shape of its
`schema_version`.

`as_of` selects the events that had occurred by then, `known_at` those that had been recorded by then, both together
what was known at `known_at` about `as_of`.
"""
_LAST_VERSION = 2**31 - 1
_DOCUMENT_VERSION = 1  # of what the history answers: see `Aggregate.document_version`

AnyAggregate: TypeAlias = Aggregate[Any, Any]


class _Paging(BaseModel):
    model_config = ConfigDict(extra="forbid")
    after_version: int = Field(0, ge=0, le=_LAST_VERSION, description="only events after this version")
    limit: int = Field(1_000, ge=1, le=1_000, description="events on a page")


class RecordedEvent(msgspec.Struct):
    """`models.EventDocument`. Each JSON text is passed on as it was stored and hashed: neither upcast nor parsed."""

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


def history_router(aggregates: Iterable[AnyAggregate], taken: Collection[str]) -> APIRouter:
    """The routes of all aggregates. `taken` are paths that read models offer: those answer `as_of` and `known_at`
    themselves, by `answer_past_state`."""
    router = APIRouter(tags=[TAG])
    for aggregate in aggregates:
        _add_history(router, aggregate)
        path = f"/{aggregate.collection}/{{{aggregate.id_field}}}"
        if path not in taken:
            _add_time_travel(router, aggregate, path)
    return router


def _add_history(router: APIRouter, aggregate: AnyAggregate) -> None:
    noun = aggregate.noun

    @router.get(
        f"/{aggregate.collection}/{{{aggregate.id_field}}}/history",
        name=f"get {noun} history",
        summary=f"The history of one {noun}",
        description=f"The events of the {noun}, oldest first, **as stored**.",
        response_model=_history_model(aggregate),
        responses={
            200: {
                "description": "A page of events",
                "headers": {
                    **answer_headers(ETAG_EXAMPLE),
                    "Link": {"schema": {"type": "string"}, "description": '`rel="next"`: the next page'},
                },
            },
            **NOT_MODIFIED,
            **responses(
                *UNAVAILABLE,
                (404, not_found_code(aggregate), f"There is no such {noun}; Consistency-Token says as of when."),
                (422, "invalid-request", "A parameter is not acceptable."),
            ),
        },
        openapi_extra={"parameters": [*TOKEN_HEADERS, IF_NONE_MATCH]},
    )
    @allowed(*readers_of(aggregate))
    async def get_history(
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
        paging: Annotated[_Paging, Query()],
    ) -> Response:
        stream_id, owner = aggregate.stream_of(aggregate_id), limited_to_owner(request.scope)
        page, headers = await ask_log(
            request,
            lambda history, *asked: history.events(stream_id, owner, paging.after_version, paging.limit, *asked),
        )
        if page is None:
            return not_found(request, aggregate, f"There is no {noun} {aggregate_id!r}.", headers)
        after = page.events[-1].version if page.more else None
        if after is not None:
            query = urlencode({"after_version": after, "limit": paging.limit})
            headers["Link"] = f'<{request.url.path}?{query}>; rel="next"'
        events = [as_stored(event) for event in page.events]
        body = msgspec.json.encode({aggregate.id_field: aggregate_id, "events": events, "next_after_version": after})
        etag = etag_of(page.version, _DOCUMENT_VERSION, headers["Consistency-Token"])
        return unless_known(request, body, etag, headers)


def _add_time_travel(router: APIRouter, aggregate: AnyAggregate, path: str) -> None:
    noun = aggregate.noun

    @router.get(
        path,
        name=f"get {noun}",
        summary=f"One {noun}, now or at an earlier time",
        description=f"The {noun} as the log (or a replica of it) tells; without `as_of` and `known_at`, of all events.",
        response_model=dict[str, Any],
        responses={
            200: {
                "description": f"The {noun}",
                "headers": answer_headers(ETAG_EXAMPLE),
                "content": {"application/json": {"example": _example_of(aggregate)}},
            },
            **NOT_MODIFIED,
            **responses(
                *UNAVAILABLE,
                (404, not_found_code(aggregate), f"There was no such {noun}; Consistency-Token says as of when."),
                (422, "invalid-request", "A parameter is not acceptable."),
                TIME_IN_THE_FUTURE,
                *UNREADABLE,
            ),
        },
        openapi_extra={"parameters": [*TIMES, *TOKEN_HEADERS, IF_NONE_MATCH]},
    )
    @allowed(*readers_of(aggregate))
    async def get_past_state(
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
    ) -> Response:
        return await answer_past_state(request, aggregate, aggregate_id)


def _example_of(aggregate: AnyAggregate) -> Any:
    """The document after the example of its first event."""
    if aggregate.example is None:
        return {}
    at = datetime(2010, 12, 1, 8, 26, tzinfo=UTC)
    past = time_travel.after(aggregate, aggregate.example_id, None, aggregate.example, at, 1)
    return msgspec.to_builtins(aggregate.render(aggregate.example_id, past))


def _history_model(aggregate: AnyAggregate) -> type[BaseModel]:
    name = "".join(part.capitalize() for part in aggregate.category.split("_"))
    example: dict[str, Any] = {
        aggregate.id_field: aggregate.example_id,
        "events": [event_example(aggregate)],
        "next_after_version": None,
    }
    fields: dict[str, Any] = {
        aggregate.id_field: (str, ...),
        "events": (list[EventDocument], ...),
        "next_after_version": (int | None, Field(description="send it back as `after_version`; null on the last page")),
    }
    return create_model(f"{name}History", __config__=ConfigDict(json_schema_extra={"example": example}), **fields)
