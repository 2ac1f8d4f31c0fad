"""Questions to the log over HTTP: the headers, the point in time and the answers that its routes have in common."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Any, TypeAlias, TypeVar

import msgspec
from fastapi import Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.responses import Response

from query_service.api.dependencies import queries_of
from query_service.api.lag_header import answer_from_log
from query_service.api.requests import TOKEN_REFUSALS, OpenedDocument, preferred_wait, unless_known
from query_service.fair_queue import TooManyCostlyReads
from query_service.log_reader import LogUnavailable
from query_service.point_in_time import CLOCK_TOLERANCE, PointInTime, rfc3339
from query_service.stream_history import LogLagging, StreamHistory
from shared.aggregates.aggregate import Aggregate
from shared.errors import Invalid
from shared.eventstore.feed import EVENT_LOG
from shared.eventstore.log import Head
from shared.eventstore.token import ConsistencyToken
from shared.http import problems
from shared.http.client import client_of
from shared.http.etags import etag_of
from shared.http.fields import Rfc3339
from shared.http.form_errors import FormError
from shared.http.openapi import REFUSED, Described
from shared.http.request_headers import header
from shared.identity.access import limited_to_owner
from shared.identity.caller import READERS, Role

T = TypeVar("T")
S = TypeVar("S")
E = TypeVar("E")

Opened: TypeAlias = Callable[[bytes], Awaitable[OpenedDocument]]  # of the JSON of a document with sealed texts

UNAVAILABLE: tuple[Described, ...] = (
    *TOKEN_REFUSALS,
    (TooManyCostlyReads(), "Too many reads that cost much wait, of this client or of all."),
    (LogLagging(1_230, 1_234), "The copy of the log did not reach the Consistency-Token in time."),
    (LogUnavailable(), "PostgreSQL does not answer."),
    *REFUSED,
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


# Parsed by `answer_past_state` itself, so that a query without them pays nothing; documented here.
TIMES = [
    _time_parameter("as_of", "The state at this time as far as is known now: events that had occurred by then."),
    _time_parameter("known_at", "The state as far as was known at this time: events that had been recorded by then."),
]


@dataclass
class TimeInTheFuture(Invalid):
    """`errors` points at the parameter, as for every 422."""

    errors: list[FormError] = field(default_factory=list)
    code = "time-in-the-future"
    title = "The given time lies in the future"

    @property
    def detail(self) -> str:
        return " ".join(error.detail for error in self.errors)


TIME_IN_THE_FUTURE: Described = (
    TimeInTheFuture([FormError("query/as_of", "time-in-the-future", "as_of 2999-01-01T00:00:00Z is later than now.")]),
    "as_of or known_at is more than a minute in the future.",
)


class _Times(BaseModel):
    model_config = ConfigDict(extra="forbid")
    as_of: Rfc3339 | None = None
    known_at: Rfc3339 | None = None


async def answer_past_state(
    request: Request,
    aggregate: Aggregate[S, E],
    aggregate_id: str,
    opened: Opened | None = None,
) -> Response:
    """Answers `GET /<collection>/{id}` with the parameters `TIMES`: the document at that point in time. `opened` opens
    what is sealed in it."""
    answer_from_log(request)
    point = _point_in_time(request, datetime.now(UTC))
    stream_id = aggregate.stream_of(aggregate_id)
    owner = limited_to_owner(request.scope)
    past, headers = await ask_log(
        request, lambda history, *asked: history.past_state(aggregate, stream_id, owner, point, *asked)
    )
    if past is None:
        detail = f"There was no {aggregate.noun} {aggregate_id!r} {point}".rstrip() + "."
        return not_found(request, aggregate, detail, headers)
    etag = etag_of(past.version, aggregate.document_version, headers["Consistency-Token"])
    body, erased = msgspec.json.encode(aggregate.render(aggregate_id, past)), False
    if opened is not None:
        body, erased = await opened(body)
    return unless_known(request, body, etag, headers, erased=erased)


def _point_in_time(request: Request, now: datetime) -> PointInTime:
    """Raises `RequestValidationError` and `TimeInTheFuture`."""
    try:
        times = _Times.model_validate(dict(request.query_params))
    except ValidationError as error:
        found = [{**one, "loc": ("query", *one["loc"])} for one in error.errors()]
        raise RequestValidationError(found) from error
    point = PointInTime(times.as_of, times.known_at)
    check_not_in_the_future(point._asdict(), now)
    return point


def check_not_in_the_future(times: Mapping[str, datetime | None], now: datetime) -> None:
    """Of query parameters, by name. Raises `TimeInTheFuture`."""
    early = [
        FormError(
            f"query/{name}",
            "time-in-the-future",
            f"{name} {rfc3339(time)} is later than now ({rfc3339(now)}).",
            {"now": rfc3339(now)},
        )
        for name, time in times.items()
        if time is not None and time > now + CLOCK_TOLERANCE
    ]
    if early:
        raise TimeInTheFuture(early)


async def ask_log(
    request: Request, ask: Callable[[StreamHistory, str, ConsistencyToken | None, float], Awaitable[tuple[Head, T]]]
) -> tuple[T, dict[str, str]]:
    """(result of `ask` once the log has reached the request's token, headers of the answer). `ask` gets the client, the
    token and the time to wait for it."""
    token = header(request.scope, b"consistency-token")
    preferred = preferred_wait(header(request.scope, b"prefer"))
    queries, stream_history, client = queries_of(request), request.app.state.history, client_of(request.scope)
    wait = queries.token_wait_seconds if preferred is None else preferred
    if token is None:
        head, value = await ask(stream_history, client, None, wait)
    else:
        asked = partial(ask, stream_history, client)
        head, value = await queries.feeds.read(EVENT_LOG, token, lambda wanted: asked(wanted, wait))
    headers = {"Consistency-Token": head.token.encode()}
    if token is not None and preferred is not None:
        headers["Preference-Applied"] = f"wait={preferred}"
    return value, headers


def readers_of(aggregate: Aggregate[S, E]) -> tuple[Role, ...]:
    """The roles that read one aggregate of the kind: a customer reads its own, where each has an owner."""
    readers = READERS if aggregate.owner is None else (Role.CUSTOMER, *READERS)
    return (Role.OPERATOR, *readers) if aggregate.for_operators else readers


def not_found(request: Request, aggregate: Aggregate[S, E], detail: str, headers: dict[str, str]) -> Response:
    title = f"There is no such {aggregate.noun}"
    path, root_path = request.url.path, request.scope["root_path"]
    return problems.problem(404, not_found_code(aggregate), title, detail, path, headers, root_path=root_path)


def not_found_code(aggregate: Aggregate[S, E]) -> str:
    return f"{aggregate.category.replace('_', '-')}-not-found"
