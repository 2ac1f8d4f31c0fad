"""The accounts read model: one account from Redis, and its statement, which comes from the log."""

from __future__ import annotations

import asyncio
from datetime import UTC, date, datetime
from hashlib import blake2b
from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Path, Query, Request
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field
from starlette.responses import Response

from query_service.api import documents
from query_service.api.documents import answer_document
from query_service.api.lag_header import answer_from_log
from query_service.api.log_queries import (
    TIME_IN_THE_FUTURE,
    TIMES,
    UNAVAILABLE,
    ask_log,
    check_not_in_the_future,
    not_found,
)
from query_service.api.requests import (
    ETAG_EXAMPLE,
    IF_NONE_MATCH,
    NOT_MODIFIED,
    PARKED_HEADER,
    TOKEN_HEADERS,
    MalformedCursor,
    answer_headers,
    unless_known,
)
from query_service.chronology import After, Period
from query_service.coalescing_reader import CoalescingReader
from query_service.parked_document import ProjectionParked
from query_service.read_model import ReadModel
from query_service.read_models.account_statement import Cursor, Statement, StatementQuery, render
from query_service.read_result import Document, ReadResult
from query_service.redis_store import in_redis
from shared.aggregates.account import ACCOUNT
from shared.eventstore.token import ConsistencyToken
from shared.http.fast_route import FastRoute
from shared.http.fields import Id
from shared.http.openapi import UNREADABLE, Described, responses
from shared.identity.access import allowed, limited_to_owner
from shared.identity.caller import READERS, Role

# --- reader --------------------------------------------------------------------------------------------------------


class AccountsReader:
    def __init__(self, reader: CoalescingReader) -> None:
        self._reader = reader

    def one(self, account_id: str, at_least: ConsistencyToken | None) -> asyncio.Future[ReadResult[Document]]:
        return self._reader.document(account_id, at_least)


# --- documents, as OpenAPI shows them ------------------------------------------------------------------------------

_ACCOUNT_EXAMPLE: dict[str, Any] = {
    "account_id": "alice-main",
    "owner_id": "alice",
    "currency": "GBP",
    "currency_exponent": 2,
    "balance": 3_800,
    "available": 13_800,
    "overdraft_limit": 10_000,
    "interest_paid_until": None,
    "opened_at": "2026-01-02T09:00:00Z",
    "last_event_at": "2026-01-31T14:30:00Z",
    "version": 3,
}


class Account(BaseModel):
    """Times are business times. Amounts are in minor units."""

    model_config = ConfigDict(json_schema_extra={"example": _ACCOUNT_EXAMPLE})
    account_id: str
    owner_id: str
    currency: str = Field(description="ISO 4217")
    currency_exponent: int = Field(description="decimal digits of the minor unit: JPY 0, GBP 2, KWD 3")
    balance: int
    available: int = Field(description="balance and overdraft limit")
    overdraft_limit: int
    interest_paid_until: date | None = Field(description="the first day for which no interest was paid")
    opened_at: AwareDatetime
    last_event_at: AwareDatetime = Field(description="business time of the latest event")
    version: int = Field(description="number of events so far; at an earlier time, of the last one that counts")


# --- routes --------------------------------------------------------------------------------------------------------

router = APIRouter(tags=["accounts"], route_class=FastRoute)

AccountId = Annotated[Id, Path(description="as given or made when the account was opened", examples=["alice-main"])]

_INVALID: Described = (422, "invalid-request", "A parameter is not acceptable.")
_NOT_FOUND: Described = (
    404,
    "account-not-found",
    "There is no such account, or was none then; Consistency-Token says as of when.",
)


@router.get(
    "/accounts/{account_id}",
    summary="One account, now or at an earlier time",
    description="The balance as the read model shows it. With `as_of`, `known_at` or both: as it was then, folded from"
    " the log itself. A backdated entry counts for `as_of` from when it occurred, for `known_at` from when it was"
    " recorded.",
    response_model=Account,
    responses={
        200: {"description": "The account", "headers": answer_headers(ETAG_EXAMPLE) | PARKED_HEADER},
        **NOT_MODIFIED,
        **responses(
            *documents.UNAVAILABLE,
            (ProjectionParked(1_200, "MoneyDeposited"), "The read model could not apply an event of this account."),
            _INVALID,
            TIME_IN_THE_FUTURE,
            _NOT_FOUND,
            *UNREADABLE,
        ),
    },
    openapi_extra={"parameters": [*TIMES, *TOKEN_HEADERS, IF_NONE_MATCH]},
)
@allowed(Role.CUSTOMER, *READERS)
async def get_account(request: Request, account_id: AccountId) -> Response:
    return await answer_document(request, ACCOUNT, ACCOUNTS, account_id)


@router.get(
    "/accounts/{account_id}/statement",
    summary="The statement of an account",
    description="Its entries in the order in which they occurred, with the balance after each: that which the account"
    " shows `as_of` then. Read from the log, so `known_at` shows the statement as it was known at that time. Following"
    " `next_cursor` neither repeats nor misses an entry: what is recorded meanwhile, backdated or not, is on no later"
    " page.",
    response_model=Statement,
    responses={
        200: {"description": "A page of the statement", "headers": answer_headers(ETAG_EXAMPLE)},
        **NOT_MODIFIED,
        **responses(
            *UNAVAILABLE,
            _INVALID,
            (MalformedCursor(), "The cursor is not one of ours."),
            TIME_IN_THE_FUTURE,
            _NOT_FOUND,
            *UNREADABLE,
        ),
    },
    openapi_extra={"parameters": [*TOKEN_HEADERS, IF_NONE_MATCH]},
)
@allowed(Role.CUSTOMER, *READERS)
async def get_statement(request: Request, account_id: AccountId, query: Annotated[StatementQuery, Query()]) -> Response:
    answer_from_log(request)
    check_not_in_the_future({"known_at": query.known_at}, datetime.now(UTC))
    cursor = None if query.cursor is None else Cursor.decode(query.cursor)
    period = Period(query.begin, query.end, query.known_at, None if cursor is None else After(*cursor[:3]))
    stream_id = ACCOUNT.stream_of(account_id)
    owner = limited_to_owner(request.scope)
    page, headers = await ask_log(
        request, lambda history, *asked: history.chronology(ACCOUNT, stream_id, owner, period, query.limit, *asked)
    )
    if page is None:
        return not_found(request, ACCOUNT, f"There is no account {account_id!r}.", headers)
    body, following = render(account_id, page, cursor)
    if following is not None:
        kept = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
        query_string = urlencode([*kept, ("cursor", following)])
        headers["Link"] = f'<{request.url.path}?{query_string}>; rel="next"'
    return unless_known(request, body, f'"{blake2b(body, digest_size=12).hexdigest()}"', headers)


ACCOUNTS = ReadModel(
    name="accounts",
    store=in_redis,
    reader=AccountsReader,
    router=router,
    tag="accounts",
    tag_description="Balances as the read model shows them, and statements from the log.",
)
