"""Random commands on three accounts, backdated and at the same time, through two processes: the books balance at every
position of the log, and no account is overdrawn at any time, as it was known at any time."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

import pytest
import uvloop
from hypothesis import given as for_all
from hypothesis import settings as effort
from hypothesis import strategies as st

from command_service.decision import CommandMetadata
from command_service.domain.account import (
    AccountCommand,
    ApplyInterest,
    DepositMoney,
    OpenAccount,
    TransferMoney,
    WithdrawMoney,
)
from query_service import time_travel
from query_service.point_in_time import PointInTime
from shared.aggregates.account import (
    ACCOUNT,
    Account,
    AccountEvent,
    AccountOpened,
    InterestApplied,
    MoneyDeposited,
    MoneyWithdrawn,
    TransferInitiated,
    TransferReceived,
)
from shared.aggregates.aggregate import PastState
from shared.errors import OrdersError
from shared.eventstore import codec
from shared.eventstore.log import StoredEvent
from shared.eventstore.memory import InMemoryEventStore
from tests.accounts import day
from tests.command_service.processes import handling

LIMITS = {"a": 0, "b": 50, "c": 7}
_IDS = st.sampled_from(sorted(LIMITS))
_AMOUNTS = st.integers(1, 120)
_DAYS = st.integers(1, 8)
_COMMANDS: st.SearchStrategy[AccountCommand] = st.one_of(
    st.builds(DepositMoney, _IDS, _AMOUNTS, st.just("in")),
    st.builds(WithdrawMoney, _IDS, _AMOUNTS, st.just("out")),
    st.builds(TransferMoney, _IDS, _IDS, st.uuids().map(str) | st.just("t"), _AMOUNTS, st.just("move")),
    st.builds(
        lambda account_id, rate, first, days: ApplyInterest(
            account_id, rate, day(first).date(), day(first + days).date()
        ),
        _IDS,
        st.sampled_from([0, 1_000, 99_999]),
        _DAYS,
        st.integers(1, 3),
    ),
)


class Sent(NamedTuple):
    """`at`: when it occurred; None: now. `alone`: it is sent when all before it are answered."""

    command: AccountCommand
    at: datetime | None
    process: int
    alone: bool


SENT = st.builds(
    Sent,
    _COMMANDS,
    st.none() | st.builds(day, _DAYS, st.sampled_from([0, 9, 12])),
    st.sampled_from([0, 1]),
    st.booleans(),
)


async def send_all(store: InMemoryEventStore, commands: Sequence[Sent]) -> None:
    """Whatever is refused is refused by a rule."""
    async with AsyncExitStack() as running:
        handlers = [await running.enter_async_context(handling(store, store.open_session)) for _ in range(2)]
        for account_id, limit in LIMITS.items():
            opening = OpenAccount(account_id, "alice", "GBP", limit)
            await handlers[0].handle(opening, CommandMetadata("test", occurred_at=day(1, 0)))
        tasks: list[asyncio.Task[object]] = []
        for command, at, process, alone in commands:
            if alone:
                await _answered(tasks)
            tasks.append(
                asyncio.create_task(handlers[process].handle(command, CommandMetadata("test", occurred_at=at)))
            )
        await _answered(tasks)


async def _answered(tasks: Sequence[asyncio.Task[object]]) -> None:
    for outcome in await asyncio.gather(*tasks, return_exceptions=True):
        if isinstance(outcome, BaseException) and not isinstance(outcome, OrdersError):
            raise outcome


@pytest.mark.promise(
    "commands", "The sum over all accounts is deposits less withdrawals and interest, at every position"
)
@for_all(commands=st.lists(SENT, max_size=25))
@effort(deadline=None)
def test_the_books_balance_at_every_position(commands: list[Sent]) -> None:
    log = _log_after(commands)
    balances: defaultdict[str, int] = defaultdict(int)
    deposits = withdrawals = interest = in_transit = 0
    for position, (stored, event) in enumerate(log):
        match event:
            case MoneyDeposited(amount):
                deposits, change = deposits + amount, amount
            case MoneyWithdrawn(amount):
                withdrawals, change = withdrawals + amount, -amount
            case InterestApplied(amount=amount):
                interest, change = interest + amount, amount
            case TransferInitiated(amount=amount):
                in_transit, change = in_transit + amount, -amount
                assert isinstance(log[position + 1][1], TransferReceived), "one append"
            case TransferReceived(amount=amount):
                in_transit, change = in_transit - amount, amount
            case _:
                change = 0
        if ACCOUNT.id_of(stored.stream_id) is None:
            continue
        balances[stored.stream_id] += change
        assert in_transit >= 0
        assert sum(balances.values()) + in_transit == deposits - withdrawals + interest
    assert in_transit == 0
    for stream_id, balance in balances.items():
        past = _past(_of(log, stream_id), PointInTime())
        assert past is not None
        assert past.state.balance == balance


@pytest.mark.promise("commands", "No account is overdrawn beyond its limit at any time, as known at any time")
@for_all(commands=st.lists(SENT, max_size=18))
@effort(deadline=None)
def test_no_account_is_overdrawn_at_any_time_as_it_was_known_at_any_time(commands: list[Sent]) -> None:
    log = _log_after(commands)
    for account_id, limit in LIMITS.items():
        events = _of(log, ACCOUNT.stream_of(account_id))
        for known in range(1, len(events) + 1):
            balance = 0
            for _, together in _by_time(events[:known]):
                balance += sum(_change(event) for event in together)
                assert balance >= -limit


@for_all(commands=st.lists(SENT, max_size=18))
@effort(deadline=None)
def test_every_balance_of_the_past_is_the_sum_of_the_entries_that_count(commands: list[Sent]) -> None:
    log = _log_after(commands)
    for account_id in LIMITS:
        events = _of(log, ACCOUNT.stream_of(account_id))
        for as_of in sorted({stored.occurred_at for stored, _ in events}):
            for known_at in sorted({stored.recorded_at for stored, _ in events}):
                point = PointInTime(as_of, known_at)
                past = _past(events, point)
                counted = [_change(event) for stored, event in events if point.includes(stored)]
                assert (0 if past is None else past.state.balance) == sum(counted)


@pytest.mark.promise("commands", "Interest that was paid is right for ever: its days take no later entry")
@for_all(commands=st.lists(SENT, max_size=25))
@effort(deadline=None)
def test_interest_equals_that_of_all_entries_whenever_they_were_recorded(commands: list[Sent]) -> None:
    log = _log_after(commands)
    for account_id in LIMITS:
        events = _of(log, ACCOUNT.stream_of(account_id))
        carried = 0
        for _, event in events:
            if isinstance(event, InterestApplied):
                days = [event.first + timedelta(days=n) for n in range((event.until - event.first).days)]
                balance_days = sum(max(_closing(events, each), 0) for each in days)
                total = balance_days * event.annual_rate_bps + carried
                assert (event.amount, event.remainder) == divmod(total, 365 * 10_000)
                carried = event.remainder


Log = list[tuple[StoredEvent, AccountEvent]]


def _log_after(commands: Sequence[Sent]) -> Log:
    ticks = iter(range(10**9))
    store = InMemoryEventStore(now=lambda: datetime.now(UTC) + timedelta(microseconds=next(ticks)))
    uvloop.run(send_all(store, commands))

    async def read() -> Log:
        return [(stored, codec.decode(*stored[4:7])) async for stored in store.read_all()]

    return asyncio.run(read())


def _of(log: Log, stream_id: str) -> Log:
    return [(stored, event) for stored, event in log if stored.stream_id == stream_id]


def _change(event: AccountEvent) -> int:
    if isinstance(event, MoneyWithdrawn | TransferInitiated):
        return -event.amount
    return 0 if isinstance(event, AccountOpened) else event.amount


def _past(events: Log, point: PointInTime) -> PastState[Account] | None:
    """As the query service folds it."""
    past: PastState[Account] | None = None
    for stored, _ in events:
        if point.is_over(stored, ACCOUNT.backdating):
            break
        if point.includes(stored):
            past = time_travel.advance(ACCOUNT, past, stored)
    return past


def _by_time(events: Log) -> Iterator[tuple[datetime, list[AccountEvent]]]:
    at_once: defaultdict[datetime, list[AccountEvent]] = defaultdict(list)
    for stored, event in events:
        at_once[stored.occurred_at].append(event)
    yield from sorted(at_once.items())


def _closing(events: Log, of_day: date) -> int:
    """The closing balance of a day, by all entries that there are."""
    return sum(_change(event) for stored, event in events if stored.occurred_at.date() <= of_day)
