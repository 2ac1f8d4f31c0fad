"""The accounts read model: one account from Redis, and its statement, which comes from the log."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Iterator
from datetime import UTC, date, datetime
from hashlib import blake2b
from typing import Annotated, Any, NamedTuple
from urllib.parse import urlencode

import msgspec
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
from query_service.read_result import Document, ReadResult
from query_service.redis_store import in_redis
from query_service.stream_history import ChronologyPage
from shared.aggregates.account import (
    ACCOUNT,
    AccountEvent,
    AccountOpened,
    InterestApplied,
    MoneyDeposited,
    MoneyWithdrawn,
    TransferInitiated,
    TransferReceived,
    change_of,
)
from shared.currencies import exponent_of
from shared.eventstore import codec
from shared.eventstore.log import StoredEvent
from shared.eventstore.token import ConsistencyToken
from shared.http.fast_route import FastRoute
from shared.http.fields import Id, Rfc3339, StoredTime
from shared.http.openapi import UNREADABLE, Described, responses
from shared.identity.access import allowed, limited_to_owner
from shared.identity.caller import READERS, Role

# --- reader --------------------------------------------------------------------------------------------------------


class AccountsReader:
    def __init__(self, reader: CoalescingReader) -> None:
        self._reader = reader

    def one(self, account_id: str, at_least: ConsistencyToken | None) -> asyncio.Future[ReadResult[Document]]:
        return self._reader.document(account_id, at_least)


# --- statement -----------------------------------------------------------------------------------------------------


class _Entry(msgspec.Struct, frozen=True):
    """`amount` is below 0 where money left the account; `balance` is the account's after it."""

    version: int
    event_type: str
    amount: int
    balance: int
    occurred_at: datetime
    recorded_at: datetime
    reference: str | None = None
    order_id: str | None = None
    transfer_id: str | None = None
    other_account_id: str | None = None
    interest_from: date | None = None
    interest_to: date | None = None


def _entries_of(events: list[StoredEvent], balance: int) -> Iterator[_Entry]:
    """An entry for each event, the first after that balance."""
    for stored in events:
        event: AccountEvent = codec.decode(stored.event_type, stored.schema_version, stored.data)
        amount = change_of(event)
        balance += amount
        at = stored.occurred_at, stored.recorded_at
        yield _Entry(stored.version, stored.event_type, amount, balance, *at, **_about(event))


def _about(event: AccountEvent) -> dict[str, Any]:
    match event:
        case MoneyDeposited() | MoneyWithdrawn():
            return {"reference": event.reference, "order_id": event.order_id}
        case TransferInitiated():
            return _about_transfer(event, event.to_account_id)
        case TransferReceived():
            return _about_transfer(event, event.from_account_id)
        case InterestApplied():
            return {"interest_from": event.first, "interest_to": event.until}
        case AccountOpened():
            return {}


def _about_transfer(event: TransferInitiated | TransferReceived, other_account_id: str) -> dict[str, Any]:
    return {"reference": event.reference, "transfer_id": event.transfer_id, "other_account_id": other_account_id}


_Version = Annotated[int, msgspec.Meta(ge=1, le=2**31 - 1)]


class _Cursor(NamedTuple):
    """Where a page of a statement ended, and the balance there."""

    of_version: _Version
    occurred_at: Annotated[datetime, msgspec.Meta(tz=True)]
    version: _Version
    balance: int

    def encode(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")

    @classmethod
    def decode(cls, cursor: str) -> _Cursor:
        """Raises `MalformedCursor`."""
        try:
            text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars="-_", validate=True)
            return msgspec.json.decode(text, type=cls)
        except (binascii.Error, ValueError):
            raise MalformedCursor from None


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
_ENTRY_EXAMPLE: dict[str, Any] = {
    "version": 3,
    "event_type": "TransferInitiated",
    "amount": -1_200,
    "balance": 3_800,
    "occurred_at": "2026-01-31T14:30:00Z",
    "recorded_at": "2026-01-31T14:30:00.123456Z",
    "reference": "savings 2026-01",
    "order_id": None,
    "transfer_id": "rent-2026-01",
    "other_account_id": "alice-savings",
    "interest_from": None,
    "interest_to": None,
}
_STATEMENT_EXAMPLE: dict[str, Any] = {
    "account_id": "alice-main",
    "currency": "GBP",
    "currency_exponent": 2,
    "opening_balance": 5_000,
    "entries": [_ENTRY_EXAMPLE],
    "closing_balance": 3_800,
    "next_cursor": None,
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


class StatementEntry(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": _ENTRY_EXAMPLE})
    version: int = Field(description="of the account by this entry: the order of recording")
    event_type: str
    amount: int = Field(description="below 0: money left the account")
    balance: int = Field(description="after this entry, in the order of the statement")
    occurred_at: AwareDatetime
    recorded_at: AwareDatetime
    reference: str | None
    order_id: str | None = Field(description="the order that was paid, or whose payment was refunded")
    transfer_id: str | None
    other_account_id: str | None = Field(description="of a transfer")
    interest_from: date | None
    interest_to: date | None


class Statement(BaseModel):
    model_config = ConfigDict(json_schema_extra={"example": _STATEMENT_EXAMPLE})
    account_id: str
    currency: str = Field(description="ISO 4217")
    currency_exponent: int
    opening_balance: int = Field(description="before the first entry of this page")
    entries: list[StatementEntry] = Field(description="by occurred_at, then by version")
    closing_balance: int = Field(description="after the last entry of this page")
    next_cursor: str | None = Field(description="send it back as `cursor`; null on the last page")


# --- routes --------------------------------------------------------------------------------------------------------

router = APIRouter(tags=["accounts"], route_class=FastRoute)

AccountId = Annotated[Id, Path(description="as given or made when the account was opened", examples=["alice-main"])]

_INVALID: Described = (422, "invalid-request", "A parameter is not acceptable.")
_NOT_FOUND: Described = (
    404,
    "account-not-found",
    "There is no such account, or was none then; Consistency-Token says as of when.",
)


_CURSOR_EXAMPLE = _Cursor(5, datetime(2026, 1, 31, 14, 30, tzinfo=UTC), 3, 3_800).encode()


class StatementQuery(BaseModel):
    model_config = ConfigDict(extra="forbid")
    begin: StoredTime | None = Field(
        None, alias="from", description="entries that occurred at this time or later", examples=["2026-01-01T00:00:00Z"]
    )
    end: Rfc3339 | None = Field(
        None, alias="to", description="entries that occurred before this time", examples=["2026-02-01T00:00:00Z"]
    )
    known_at: Rfc3339 | None = Field(
        None, description="entries that had been recorded by then", examples=["2026-02-01T09:00:00Z"]
    )
    limit: int = Field(20, ge=1, le=100, description="entries on a page")
    cursor: str | None = Field(
        None, max_length=200, description="next_cursor of the page before", examples=[_CURSOR_EXAMPLE]
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
    cursor = None if query.cursor is None else _Cursor.decode(query.cursor)
    period = Period(query.begin, query.end, query.known_at, None if cursor is None else After(*cursor[:3]))
    stream_id = ACCOUNT.stream_of(account_id)
    owner = limited_to_owner(request.scope)
    page, headers = await ask_log(
        request, lambda history, *asked: history.chronology(ACCOUNT, stream_id, owner, period, query.limit, *asked)
    )
    if page is None:
        return not_found(request, ACCOUNT, f"There is no account {account_id!r}.", headers)
    body, following = _render(account_id, page, cursor)
    if following is not None:
        kept = [(name, value) for name, value in request.query_params.multi_items() if name != "cursor"]
        query_string = urlencode([*kept, ("cursor", following)])
        headers["Link"] = f'<{request.url.path}?{query_string}>; rel="next"'
    return unless_known(request, body, f'"{blake2b(body, digest_size=12).hexdigest()}"', headers)


def _render(account_id: str, page: ChronologyPage[Any], cursor: _Cursor | None) -> tuple[bytes, str | None]:
    """(JSON of the page, cursor of the next one)."""
    begun = codec.decode(*page.begun[4:7])
    opening = cursor.balance if cursor is not None else 0 if page.before is None else page.before.state.balance
    entries = [*_entries_of(page.page.events, opening)]
    closing = entries[-1].balance if entries else opening
    following = None
    if page.page.more:
        following = _Cursor(page.version, entries[-1].occurred_at, entries[-1].version, closing).encode()
    statement = {
        "account_id": account_id,
        "currency": begun.currency,
        "currency_exponent": exponent_of(begun.currency),
        "opening_balance": opening,
        "entries": entries,
        "closing_balance": closing,
        "next_cursor": following,
    }
    return msgspec.json.encode(statement), following


ACCOUNTS = ReadModel(
    name="accounts",
    store=in_redis,
    reader=AccountsReader,
    router=router,
    tag="accounts",
    tag_description="Balances as the read model shows them, and statements from the log.",
)
