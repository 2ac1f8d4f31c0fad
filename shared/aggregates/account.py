"""The account: a ledger of one owner in one currency. Its events, state, and document in time travel. Pure.

The stream is `account-<account_id>`. Amounts are integers in minor units of the account's currency. Days are in UTC.
The rules that decide are in `command_service/domain/account.py`; decision 49 says why the state holds days.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from operator import attrgetter
from typing import NamedTuple, assert_never, final, get_args

import msgspec

from shared.aggregates.aggregate import Aggregate, Owner, PastState
from shared.currencies import exponent_of

DAYS = 400  # before the latest entry: an earlier day is closed
YEAR_DAYS = 365  # by which a yearly rate is divided, in leap years too
BASIS_POINTS = 10_000  # in a rate of 1
_PARTS = BASIS_POINTS * YEAR_DAYS  # of a minor unit: what interest is computed in


@final
class AccountOpened(msgspec.Struct, frozen=True, gc=False):
    owner_id: str
    currency: str
    overdraft_limit: int


@final
class MoneyDeposited(msgspec.Struct, frozen=True, gc=False):
    """`order_id`: a payment for that order was refunded."""

    amount: int
    reference: str
    order_id: str | None = None


@final
class MoneyWithdrawn(msgspec.Struct, frozen=True, gc=False):
    """`order_id`: that order was paid."""

    amount: int
    reference: str
    order_id: str | None = None


@final
class TransferInitiated(msgspec.Struct, frozen=True, gc=False):
    """The money left this account. `TransferReceived` of the other one is in the same append."""

    transfer_id: str
    to_account_id: str
    amount: int
    reference: str


@final
class TransferReceived(msgspec.Struct, frozen=True, gc=False):
    transfer_id: str
    from_account_id: str
    amount: int
    reference: str


@final
class InterestApplied(msgspec.Struct, frozen=True, gc=False):
    """For the days from `first` to the one before `until`. `remainder` is what is carried to the next interest, in
    parts of which 3,650,000 are a minor unit."""

    annual_rate_bps: int
    first: date = msgspec.field(name="from")
    until: date = msgspec.field(name="to")
    amount: int
    remainder: int


AccountEvent = AccountOpened | MoneyDeposited | MoneyWithdrawn | TransferInitiated | TransferReceived | InterestApplied


class Day(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """A day with entries. No balance of the day was below `lowest`, from its first instant on."""

    day: date
    lowest: int
    closing: int


class Interest(NamedTuple):
    amount: int
    remainder: int


@dataclass(frozen=True, slots=True)
class Account:
    """An account at one version. `days` are those of the last `DAYS` days, and the last one before them."""

    owner_id: str
    currency: str
    overdraft_limit: int
    opened_at: datetime
    latest_at: datetime  # when the latest entry occurred
    days: tuple[Day, ...]
    interest_until: date | None = None  # the first day for which no interest was paid
    remainder: int = 0  # of the last interest

    @property
    def balance(self) -> int:
        return self.days[-1].closing

    @property
    def open_from(self) -> date:
        """The first day to which entries can be backdated."""
        oldest = _oldest(day_of(self.latest_at))
        return oldest if self.interest_until is None else max(oldest, self.interest_until)

    def lowest_since(self, at: datetime) -> int:
        """A bound below every balance from that time on. Exact for the latest time, else by whole days."""
        if at >= self.latest_at:
            return self.balance
        day = day_of(at)
        found = bisect_right(self.days, day, key=_by_day) - 1
        on_day = self.days[found]
        first = on_day.lowest if on_day.day == day else on_day.closing
        return min([first, *[later.lowest for later in self.days[found + 1 :]]])

    def highest_closing_since(self, at: datetime) -> int:
        found = bisect_right(self.days, day_of(at), key=_by_day) - 1
        return max([day.closing for day in self.days[found:]])

    def interest(self, first: date, until: date, annual_rate_bps: int) -> Interest:
        """On the closing balance of each day from `first` to the one before `until`. A negative balance bears none."""
        days = 0  # times their balances
        ends = [*[day.day for day in self.days[1:]], until]
        for day, end in zip(self.days, ends, strict=True):
            bearing = (min(end, until) - max(day.day, first)).days
            days += max(bearing, 0) * max(day.closing, 0)
        return Interest(*divmod(days * annual_rate_bps + self.remainder, _PARTS))


_by_day = attrgetter("day")


def day_of(at: datetime) -> date:
    return at.astimezone(UTC).date()


def change_of(event: AccountEvent) -> int:
    """What the event adds to the balance."""
    match event:
        case MoneyDeposited() | TransferReceived() | InterestApplied():
            return event.amount
        case MoneyWithdrawn() | TransferInitiated():
            return -event.amount
        case AccountOpened():
            return 0
        case _:
            assert_never(event)


def evolve_at(state: Account | None, event: AccountEvent, at: datetime) -> Account:
    """The state after the event. The log is trusted: what was decided once is not judged again."""
    if isinstance(event, AccountOpened):
        first = Day(day_of(at), 0, 0)
        return Account(event.owner_id, event.currency, event.overdraft_limit, at, at, (first,))
    assert state is not None, "an account's stream begins with AccountOpened"
    days = _booked(state, change_of(event), at)
    latest_at = max(state.latest_at, at)
    if isinstance(event, InterestApplied):
        return replace(state, days=days, latest_at=latest_at, interest_until=event.until, remainder=event.remainder)
    return replace(state, days=days, latest_at=latest_at)


def _booked(state: Account, change: int, at: datetime) -> tuple[Day, ...]:
    days, day = state.days, day_of(at)
    found = bisect_left(days, day, key=_by_day)
    before, later = days[:found], days[found:]
    if later and later[0].day == day:
        on_day, later = later[0], later[1:]
    else:
        opening = before[-1].closing
        on_day = Day(day, opening, opening)
    closing = on_day.closing + change
    # Of a backdated entry it is not known which balances of its day it changes: a withdrawal counts for all of them.
    lowest = min(on_day.lowest, closing) if at >= state.latest_at else on_day.lowest + min(change, 0)
    changed = [Day(each.day, each.lowest + change, each.closing + change) for each in later]
    booked = (*before, Day(day, lowest, closing), *changed)
    oldest = bisect_right(booked, _oldest(booked[-1].day), key=_by_day) - 1
    return booked[max(oldest, 0) :]


def _oldest(latest: date) -> date:
    return date.fromordinal(max(latest.toordinal() - DAYS, 1))


# --- document ------------------------------------------------------------------------------------------------------


class AccountDocument(msgspec.Struct, frozen=True, gc=False):
    """What `GET /accounts/{account_id}` answers, field by field. `available` can be withdrawn.

    Time travel renders it from the state, the projection `accounts` updates it event by event; a test compares the two.
    """

    account_id: str
    owner_id: str
    currency: str
    currency_exponent: int
    balance: int
    available: int
    overdraft_limit: int
    interest_paid_until: date | None
    opened_at: datetime
    last_event_at: datetime
    version: int


def document(account_id: str, past: PastState[Account]) -> AccountDocument:
    account = past.state
    return AccountDocument(
        account_id=account_id,
        owner_id=account.owner_id,
        currency=account.currency,
        currency_exponent=exponent_of(account.currency),
        balance=account.balance,
        available=account.balance + account.overdraft_limit,
        overdraft_limit=account.overdraft_limit,
        interest_paid_until=account.interest_until,
        opened_at=account.opened_at,
        last_event_at=past.last_event_at,
        version=past.version,
    )


ACCOUNT: Aggregate[Account, AccountEvent] = Aggregate(
    category="account",
    state=Account,
    events=get_args(AccountEvent),
    evolve_at=evolve_at,
    backdating=timedelta(days=DAYS + 1),  # the rule is about days: `Account.open_from`
    owner=Owner("customer", "customers", AccountOpened, "owner_id", example_id="alice"),
    document=document,
    example=AccountOpened("alice", "GBP", 0),
    example_id="alice-main",
)
