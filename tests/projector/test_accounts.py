"""The accounts projection: given a document and an event, then this document."""

from __future__ import annotations

from datetime import datetime, timedelta
from uuid import UUID

import msgspec
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from projector.projection import OutOfOrder
from projector.projections.accounts import ACCOUNTS
from projector.routing import record
from query_service import time_travel
from shared.aggregates.account import (
    ACCOUNT,
    Account,
    AccountDocument,
    AccountEvent,
    TransferInitiated,
    TransferReceived,
)
from shared.aggregates.aggregate import PastState
from shared.eventstore import codec
from shared.eventstore.log import StoredEvent
from tests.accounts import Entry, day, deposited, interest, opened, withdrawn


def stored(entries: list[Entry]) -> list[StoredEvent]:
    """Rows of a log that is made up."""
    return [
        StoredEvent(
            number,
            "account-main",
            number,
            UUID(int=number),
            *codec.encode(event),
            "{}",
            at,
            day(90),
            bytes(32),
            "alice",
        )
        for number, (at, event) in enumerate(entries, start=1)
    ]


def projected(rows: list[StoredEvent]) -> AccountDocument | None:
    document: AccountDocument | None = None
    for row in rows:
        document = ACCOUNTS.apply("main", document, record(row))
    return document


def test_an_account_shows_its_balance_and_what_is_available() -> None:
    document = projected(
        stored(
            [
                (day(1), opened(overdraft_limit=50)),
                (day(5), deposited(100)),
                (day(3), withdrawn(30)),
                (day(6), TransferInitiated("t-1", "savings", 20, "savings")),
                (day(7), TransferReceived("t-2", "savings", 5, "back")),
                (day(8), interest(1, 8, 2)),
            ]
        )
    )
    assert document == AccountDocument(
        account_id="main",
        owner_id="alice",
        currency="GBP",
        currency_exponent=2,
        balance=57,
        available=107,
        overdraft_limit=50,
        interest_paid_until=day(8).date(),
        opened_at=day(1),
        last_event_at=day(8),
        version=6,
    )


def test_a_backdated_entry_is_not_the_latest() -> None:
    document = projected(stored([(day(1), opened()), (day(5), deposited(1)), (day(3), deposited(1))]))
    assert document is not None
    assert document.last_event_at == day(5)


@pytest.mark.parametrize("missing", [0, 1])
def test_an_event_that_does_not_continue_its_stream_is_refused(missing: int) -> None:
    rows = stored([(day(1), opened()), (day(2), deposited(1)), (day(3), deposited(1))])
    del rows[missing]
    with pytest.raises(OutOfOrder):
        projected(rows)


def test_an_event_of_another_aggregate_changes_no_account() -> None:
    [row] = stored([(day(1), opened())])
    assert ACCOUNTS.route(record(row)) == ("main",)
    assert ACCOUNTS.route(record(row._replace(stream_id="order-main"))) == ()


_TIMES: st.SearchStrategy[datetime] = st.integers(0, 90).map(lambda hours: day(2, 0) + timedelta(hours=hours))
_EVENTS: st.SearchStrategy[AccountEvent] = st.one_of(
    st.integers(1, 50).map(deposited), st.integers(1, 50).map(withdrawn), st.just(interest(1, 2, 3))
)


@for_all(st.lists(st.tuples(_TIMES, _EVENTS), max_size=12))
def test_the_document_at_every_version_equals_that_of_time_travel_byte_for_byte(entries: list[Entry]) -> None:
    rows = stored([(day(1), opened(overdraft_limit=9)), *entries])
    past: PastState[Account] | None = None
    for row in rows:
        past = time_travel.advance(ACCOUNT, past, row)
        rendered = msgspec.json.encode(ACCOUNT.render("main", past))
        assert rendered == msgspec.json.encode(projected(rows[: row.version]))
