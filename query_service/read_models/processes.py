"""The processes read model: one process, and lists by kind, state and age."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.responses import Response

from query_service.api import documents
from query_service.api.dependencies import answer
from query_service.api.documents import answer_document
from query_service.api.log_queries import TIME_IN_THE_FUTURE, TIMES
from query_service.api.pages import answer_page
from query_service.api.requests import (
    ETAG_EXAMPLE,
    IF_NONE_MATCH,
    NOT_MODIFIED,
    PARKED_HEADER,
    TOKEN_HEADERS,
    MalformedCursor,
    answer_headers,
    decode_cursor,
)
from query_service.coalescing_reader import CoalescingReader
from query_service.parked_document import ProjectionParked
from query_service.read_model import ReadModel
from query_service.read_result import Document, IndexPage, ReadResult
from query_service.redis_store import in_redis
from shared.aggregates.process import PROCESS
from shared.eventstore.token import ConsistencyToken
from shared.http.fast_route import FastRoute
from shared.http.fields import ProcessId, Rfc3339
from shared.http.openapi import UNREADABLE, Described, responses
from shared.identity.access import allowed
from shared.identity.caller import READERS, Role
from shared.read_models import process_indexes
from shared.read_models.keys import sort_key

router = APIRouter(tags=["processes"], route_class=FastRoute)


class ProcessesReader:
    def __init__(self, reader: CoalescingReader) -> None:
        self._reader = reader

    def one(self, process_id: str, at_least: ConsistencyToken | None) -> asyncio.Future[ReadResult[Document]]:
        return self._reader.document(process_id, at_least)

    def newest(
        self, kind: str | None, state: str | None, after: str | None, limit: int
    ) -> asyncio.Future[ReadResult[IndexPage]]:
        """Those of this kind and in this state (None: any), or those after the entry `after`."""
        return self._reader.page(process_indexes.name_of(kind, state), after, limit)


_SUMMARY: dict[str, Any] = {
    "process_id": "fulfilment-536365",
    "kind": "fulfilment",
    "subject_id": "536365",
    "state": "stuck",
    "outcome": None,
    "stuck": "Refund declined: account closed",
    "stuck_since": "2026-01-31T14:30:00Z",
    "waits_for": [],
    "next_due_at": None,
    "started_at": "2026-01-31T14:00:00Z",
    "last_event_at": "2026-01-31T14:30:00Z",
    "version": 17,
}
_EXAMPLE: dict[str, Any] = {
    "process_id": "fulfilment-536365",
    "kind": "fulfilment",
    "subject_id": "536365",
    "code_version": 1,
    "state": "running",
    "outcome": None,
    "stuck": None,
    "stuck_since": None,
    "effects": {"fulfilment-536365-3": {"effect": "BookParcel", "since": "2026-01-31T14:00:01Z"}},
    "timers": {"parcel": "2026-02-02T14:00:01Z"},
    "started_at": "2026-01-31T14:00:00Z",
    "last_event_at": "2026-01-31T14:00:01Z",
    "version": 12,
}
State = Literal["running", "stuck", "ended"]


class RequestedEffect(BaseModel):
    effect: str
    since: AwareDatetime


class Process(BaseModel):
    """What it waits for: `effects` without an answer, by their ids, and `timers`, until the time of each."""

    model_config = ConfigDict(json_schema_extra={"example": _EXAMPLE})
    process_id: str
    kind: str
    subject_id: str
    code_version: int = Field(description="under which it began, and ends")
    state: State
    outcome: str | None
    stuck: str | None = Field(description="why it waits for an operator")
    stuck_since: AwareDatetime | None
    effects: dict[str, RequestedEffect]
    timers: dict[str, AwareDatetime]
    started_at: AwareDatetime
    last_event_at: AwareDatetime
    version: int = Field(description="number of its events; `/history` has them")


class ProcessSummary(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": _SUMMARY})
    process_id: str
    kind: str
    subject_id: str
    state: State
    outcome: str | None
    stuck: str | None
    stuck_since: AwareDatetime | None
    waits_for: list[str] = Field(description="effects without an answer, and timers")
    next_due_at: AwareDatetime | None = Field(description="of its timers")
    started_at: AwareDatetime
    last_event_at: AwareDatetime
    version: int


class ProcessPage(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": {"processes": [_SUMMARY], "next_cursor": None}})
    processes: list[ProcessSummary]
    next_cursor: str | None = Field(description="send it back as `cursor`; null on the last page")


class Listing(BaseModel):
    model_config = ConfigDict(extra="forbid")
    kind: str | None = Field(None, pattern="^[a-z0-9_]+$", max_length=64, examples=["fulfilment"])
    state: State | None = Field(None, description="only processes in this state")
    started_before: Rfc3339 | None = Field(
        None, description="only processes that are older", examples=["2026-01-31T14:30:00Z"]
    )
    limit: int = Field(20, ge=1, le=100, description="processes on a page")
    cursor: str | None = Field(
        None, max_length=200, description="next_cursor of the page before", examples=["MGUxNTY1NDBkNDg5NjAwNTM2MzY1"]
    )

    def after(self) -> str | None:
        """The entry that the page begins after. Raises `MalformedCursor`."""
        starts = [] if self.started_before is None else [sort_key(self.started_before, "")]
        if self.cursor is not None:
            starts.append(decode_cursor(self.cursor))
        return min(starts, default=None)


_INVALID: Described = (422, "invalid-request", "A parameter is not acceptable.")


@router.get(
    "/processes/{process_id}",
    summary="One process: its state, and what it waits for",
    description="As the read model shows it. With `as_of`, `known_at` or both: as it was then, folded from the log"
    " itself. `/processes/{process_id}/history` has its events.",
    response_model=Process,
    responses={
        200: {"description": "The process", "headers": answer_headers(ETAG_EXAMPLE) | PARKED_HEADER},
        **NOT_MODIFIED,
        **responses(
            *documents.UNAVAILABLE,
            (ProjectionParked(1_200, "TimerSet"), "The read model could not apply an event of this process."),
            _INVALID,
            TIME_IN_THE_FUTURE,
            (404, "process-not-found", "There is no such process, or was none then."),
            *UNREADABLE,
        ),
    },
    openapi_extra={"parameters": [*TIMES, *TOKEN_HEADERS, IF_NONE_MATCH]},
)
@allowed(Role.OPERATOR, *READERS)
async def get_process(
    request: Request,
    process_id: Annotated[ProcessId, Path(description="`<kind>-<id of its subject>`", examples=[PROCESS.example_id])],
) -> Response:
    return await answer_document(request, PROCESS, PROCESSES, process_id)


@router.get(
    "/processes",
    summary="Processes, newest first",
    description="By the time that they started, then by id, both descending. `state=stuck` lists those that wait for"
    " an operator; `started_before` those that are older.",
    response_model=ProcessPage,
    responses={
        200: {"description": "A page of processes", "headers": answer_headers(ETAG_EXAMPLE)},
        **NOT_MODIFIED,
        **responses(*documents.UNAVAILABLE, _INVALID, (MalformedCursor(), "The cursor is not one of ours.")),
    },
    openapi_extra={"parameters": [*TOKEN_HEADERS, IF_NONE_MATCH]},
)
@allowed(Role.OPERATOR, *READERS)
async def list_processes(request: Request, listing: Annotated[Listing, Query()]) -> Response:
    after = listing.after()
    _, page, headers = await answer(
        request, PROCESSES, lambda reader, _: reader.newest(listing.kind, listing.state, after, listing.limit)
    )
    return answer_page(request, "processes", page, headers)


PROCESSES = ReadModel(
    name="processes",
    store=in_redis,
    reader=ProcessesReader,
    router=router,
    tag="processes",
    tag_description="Processes, as operators see them: which are running or stuck, and what they wait for.",
)
