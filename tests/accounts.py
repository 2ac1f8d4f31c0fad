"""Accounts for tests: times, events and a grammar of decisions.

given(main=[(day(1), opened())]).when(DepositMoney("main", 5, "salary"), day(2)).then(main=deposited(5))
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import reduce
from typing import TypeAlias

import pytest

from command_service.domain.account import AccountCommand, TransferMoney, decide
from shared.aggregates.account import (
    ACCOUNT,
    Account,
    AccountEvent,
    AccountOpened,
    InterestApplied,
    MoneyDeposited,
    MoneyWithdrawn,
    evolve_at,
)
from shared.aggregates.transfer import TRANSFER, TransferRecorded
from shared.errors import OrdersError

Entry: TypeAlias = tuple[datetime, AccountEvent]


def day(number: int, hour: int = 12, minute: int = 0) -> datetime:
    """A time on that day; day 1 is the first of January 2026."""
    return datetime(2025, 12, 31, hour, minute, tzinfo=UTC) + timedelta(days=number)


def opened(*, owner_id: str = "alice", currency: str = "GBP", overdraft_limit: int = 0) -> AccountOpened:
    return AccountOpened(owner_id, currency, overdraft_limit)


def deposited(amount: int) -> MoneyDeposited:
    return MoneyDeposited(amount, "salary")


def withdrawn(amount: int) -> MoneyWithdrawn:
    return MoneyWithdrawn(amount, "rent")


def interest(first: int, until: int, amount: int, remainder: int = 0, annual_rate_bps: int = 100) -> InterestApplied:
    """For those days."""
    return InterestApplied(annual_rate_bps, day(first).date(), day(until).date(), amount, remainder)


def account(entries: Iterable[Entry], state: Account | None = None) -> Account | None:
    return reduce(lambda state, entry: evolve_at(state, entry[1], entry[0]), entries, state)


@dataclass(frozen=True)
class Decision:
    command: AccountCommand
    at: datetime
    states: Mapping[str, Account | None]
    transfer: TransferRecorded | None = None  # that has the id of the command's

    def events(self) -> dict[str, list[AccountEvent]]:
        """Those that follow, by account. A transfer is recorded beside them."""
        streams: dict[str, object] = {ACCOUNT.stream_of(account_id): state for account_id, state in self.states.items()}
        command = self.command
        if isinstance(command, TransferMoney):
            streams[TRANSFER.stream_of(command.transfer_id)] = self.transfer
        decided = {**decide(command, streams, self.at)}
        if isinstance(command, TransferMoney) and decided:
            transfer = command.account_id, command.to_account_id, command.amount, command.reference
            recorded = decided.pop(TRANSFER.stream_of(command.transfer_id))
            assert recorded == [TransferRecorded(command.transfer_id, *transfer)]
        return {str(ACCOUNT.id_of(stream)): [*events] for stream, events in decided.items()}

    def then(self, **expected: AccountEvent) -> dict[str, Account]:
        """One event for each of these accounts, exactly; answers their states after it."""
        assert self.events() == {account_id: [event] for account_id, event in expected.items()}
        return {
            account_id: evolve_at(self.states[account_id], event, self.at) for account_id, event in expected.items()
        }

    def then_refused(self, error: type[OrdersError], **data: object) -> None:
        with pytest.raises(error) as refusal:
            self.events()
        assert type(refusal.value) is error
        assert {name: getattr(refusal.value, name) for name in data} == data


@dataclass(frozen=True)
class _Past:
    states: Mapping[str, Account | None]
    transfer: TransferRecorded | None

    def when(self, command: AccountCommand, at: datetime) -> Decision:
        return Decision(command, at, self.states, self.transfer)


def given(transfer: TransferRecorded | None = None, **accounts: Iterable[Entry]) -> _Past:
    """What happened on `main` and `savings`, in the order of its recording, and a transfer that was recorded."""
    states = {account_id: account(accounts.get(account_id, ())) for account_id in ("main", "savings")}
    return _Past(states, transfer)
