"""Accounts as their owners see them: one document an account."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from projector.projection import Entry, OutOfOrder, Projection, RecordedEvent
from shared.aggregates.account import (
    ACCOUNT,
    AccountDocument,
    AccountEvent,
    AccountOpened,
    InterestApplied,
    change_of,
)
from shared.currencies import exponent_of


def route(event: RecordedEvent[Any]) -> tuple[str, ...]:
    """The account whose event it is."""
    return (event.aggregate_id,) if event.category == ACCOUNT.category else ()


def apply(account_id: str, document: AccountDocument | None, recorded: RecordedEvent[AccountEvent]) -> AccountDocument:
    """The document after the event. Raises `OutOfOrder`."""
    event, version, at = recorded.event, recorded.version, recorded.occurred_at
    known = 0 if document is None else document.version
    if version != known + 1 or isinstance(event, AccountOpened) != (document is None):
        raise OutOfOrder(account_id, known, version)
    if document is None:
        assert isinstance(event, AccountOpened)
        return AccountDocument(
            account_id=account_id,
            owner_id=event.owner_id,
            currency=event.currency,
            currency_exponent=exponent_of(event.currency),
            balance=0,
            available=event.overdraft_limit,
            overdraft_limit=event.overdraft_limit,
            interest_paid_until=None,
            opened_at=at,
            last_event_at=at,
            version=version,
        )
    change = change_of(event)
    return replace(
        document,
        balance=document.balance + change,
        available=document.available + change,
        interest_paid_until=event.until if isinstance(event, InterestApplied) else document.interest_paid_until,
        last_event_at=max(document.last_event_at, at),
        version=version,
    )


def entries(_document: AccountDocument) -> frozenset[Entry]:
    """No index lists accounts."""
    return frozenset()


ACCOUNTS = Projection("accounts", AccountDocument, route, apply, entries, version=ACCOUNT.document_version)
