"""The statement of an account: a page of the log as entries with a running balance, and its documents."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator
from datetime import UTC, date, datetime
from typing import Annotated, Any, NamedTuple

import msgspec
from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

from query_service.api.requests import MalformedCursor
from query_service.stream_history import ChronologyPage
from shared.aggregates.account import (
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
from shared.http.fields import Rfc3339, StoredTime

# --- entries -------------------------------------------------------------------------------------------------------


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


class Cursor(NamedTuple):
    """Where a page of a statement ended, and the balance there."""

    of_version: _Version
    occurred_at: Annotated[datetime, msgspec.Meta(tz=True)]
    version: _Version
    balance: int

    def encode(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")

    @classmethod
    def decode(cls, cursor: str) -> Cursor:
        """Raises `MalformedCursor`."""
        try:
            text = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars="-_", validate=True)
            return msgspec.json.decode(text, type=cls)
        except (binascii.Error, ValueError):
            raise MalformedCursor from None


def render(account_id: str, page: ChronologyPage[Any], cursor: Cursor | None) -> tuple[bytes, str | None]:
    """(JSON of the page, cursor of the next one)."""
    begun = codec.decode(*page.begun[4:7])
    opening = cursor.balance if cursor is not None else 0 if page.before is None else page.before.state.balance
    entries = [*_entries_of(page.page.events, opening)]
    closing = entries[-1].balance if entries else opening
    following = None
    if page.page.more:
        following = Cursor(page.version, entries[-1].occurred_at, entries[-1].version, closing).encode()
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


# --- documents, as OpenAPI shows them ------------------------------------------------------------------------------

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


_CURSOR_EXAMPLE = Cursor(5, datetime(2026, 1, 31, 14, 30, tzinfo=UTC), 3, 3_800).encode()


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
