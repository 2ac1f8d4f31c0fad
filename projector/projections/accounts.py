"""Accounts as their owners see them: one document an account."""

from __future__ import annotations

from msgspec.structs import replace

from projector.projection import Entry, OutOfOrder, Projection, RecordedEvent, check_next, own_stream
from shared.aggregates.account import (
    ACCOUNT,
    AccountDocument,
    AccountEvent,
    AccountOpened,
    InterestApplied,
    change_of,
)
from shared.currencies import exponent_of


def apply(account_id: str, document: AccountDocument | None, recorded: RecordedEvent[AccountEvent]) -> AccountDocument:
    """The document after the event. Raises `OutOfOrder`."""
    event, version, at = recorded.event, recorded.version, recorded.occurred_at
    check_next(account_id, document, recorded)
    if isinstance(event, AccountOpened) != (document is None):
        raise OutOfOrder(account_id, version - 1, version)
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


ACCOUNTS = Projection(
    "accounts", AccountDocument, own_stream(ACCOUNT.category), apply, entries, version=ACCOUNT.document_version
)
