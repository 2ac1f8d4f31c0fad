"""The account: its commands, its refusals, and every rule that decides. Pure; state and `evolve_at` are in
`shared/aggregates/account.py`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import assert_never, get_args

from command_service.domain.decider import Decider, EventsByStream, States
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
    day_of,
)
from shared.aggregates.transfer import TRANSFER, TransferRecorded
from shared.currencies import exponent_of
from shared.errors import Invalid, NotFound, Rejected
from shared.exact_integers import MAX_EXACT_INTEGER

MAX_BALANCE = MAX_EXACT_INTEGER
MAX_RATE_BPS = 100_000  # 1,000 % a year


# --- commands ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenAccount:
    account_id: str
    owner_id: str
    currency: str
    overdraft_limit: int = 0


@dataclass(frozen=True, slots=True)
class DepositMoney:
    account_id: str
    amount: int
    reference: str


@dataclass(frozen=True, slots=True)
class WithdrawMoney:
    account_id: str
    amount: int
    reference: str


@dataclass(frozen=True, slots=True)
class TransferMoney:
    """From the account `account_id`."""

    account_id: str
    to_account_id: str
    transfer_id: str
    amount: int
    reference: str


@dataclass(frozen=True, slots=True)
class ApplyInterest:
    """For the days from `first` to the one before `until`."""

    account_id: str
    annual_rate_bps: int
    first: date
    until: date


AccountCommand = OpenAccount | DepositMoney | WithdrawMoney | TransferMoney | ApplyInterest


# --- refusals ------------------------------------------------------------------------------------------------------


@dataclass
class AccountNotFound(NotFound):
    account_id: str
    code = "account-not-found"
    title = "There is no such account"

    @property
    def detail(self) -> str:
        return f"Account {self.account_id} has not been opened."


@dataclass
class AccountAlreadyOpen(Rejected):
    account_id: str
    code = "account-already-open"
    title = "The account has already been opened"

    @property
    def detail(self) -> str:
        return f"Account {self.account_id} exists; an account is opened once."


@dataclass
class InsufficientFunds(Rejected):
    """`available` is what could have been withdrawn at that time: the lowest balance since, and the overdraft limit."""

    account_id: str
    requested: int
    available: int
    currency: str
    currency_exponent: int
    code = "insufficient-funds"
    title = "The account does not cover the amount"

    @property
    def detail(self) -> str:
        return f"Account {self.account_id} covers {self.available}, not {self.requested} (minor units)."


@dataclass
class CurrencyMismatch(Rejected):
    account_id: str
    expected: str
    given: str
    code = "currency-mismatch"
    title = "The account is in another currency"

    @property
    def detail(self) -> str:
        return f"Account {self.account_id} is in {self.expected}, the money in {self.given}."


@dataclass
class SameAccount(Invalid):
    account_id: str
    code = "same-account"
    title = "A transfer needs two accounts"

    @property
    def detail(self) -> str:
        return f"Account {self.account_id} cannot transfer money to itself."


@dataclass
class TransferAlreadyRecorded(Rejected):
    transfer_id: str
    code = "transfer-already-recorded"
    title = "The transfer is recorded with other values"

    @property
    def detail(self) -> str:
        return f"Transfer {self.transfer_id!r} is recorded with other accounts, another amount or reference."


@dataclass
class BalanceTooLarge(Rejected):
    account_id: str
    maximum: int
    currency: str
    currency_exponent: int
    code = "balance-too-large"
    title = "The balance would be too large"

    @property
    def detail(self) -> str:
        return f"Account {self.account_id} may hold at most {self.maximum} (minor units)."


@dataclass
class AccountNotOpenYet(Rejected):
    account_id: str
    occurred_at: datetime
    opened_at: datetime
    code = "account-not-open-yet"
    title = "The account was not open at the given time"

    @property
    def detail(self) -> str:
        opened_at, occurred_at = self.opened_at.isoformat(), self.occurred_at.isoformat()
        return f"Account {self.account_id} was opened at {opened_at}, after {occurred_at}."


@dataclass
class DayClosed(Rejected):
    """Interest was paid for the day, or it is too long before the latest entry."""

    account_id: str
    day: date
    open_from: date
    code = "day-closed"
    title = "The day is closed"

    @property
    def detail(self) -> str:
        return (
            f"Account {self.account_id} takes nothing for {self.day} any more; its days are open from {self.open_from}."
        )


@dataclass
class InterestPeriodEmpty(Invalid):
    first: date
    until: date
    code = "interest-period-empty"
    title = "The interest period has no days"

    @property
    def detail(self) -> str:
        return f"The period begins on {self.first} and ends before {self.until}."


@dataclass
class InterestPeriodNotOver(Rejected):
    account_id: str
    until: date
    today: date
    code = "interest-period-not-over"
    title = "The interest period is not over"

    @property
    def detail(self) -> str:
        return f"Interest can be paid for the days before {self.today}, and the period ends before {self.until}."


# --- decide --------------------------------------------------------------------------------------------------------


def decide(command: AccountCommand, states: States, at: datetime) -> EventsByStream:
    """The events that the command leads to at that time. Raises one of the refusals."""
    account_id = command.account_id
    own = ACCOUNT.stream_of(account_id)
    state: Account | None = states[own]
    match command:
        case OpenAccount():
            return {own: [_open(command, state)]}
        case DepositMoney():
            return {own: [deposit(account_id, state, at, MoneyDeposited(command.amount, command.reference))]}
        case WithdrawMoney():
            return {own: [withdraw(account_id, state, at, MoneyWithdrawn(command.amount, command.reference))]}
        case TransferMoney():
            return _transfer(command, states, at)
        case ApplyInterest():
            return {own: [_apply_interest(command, state, at)]}
        case _:
            assert_never(command)


def deposit(account_id: str, state: Account | None, at: datetime, deposited: MoneyDeposited) -> MoneyDeposited:
    """The event, where the account takes it at that time; also of a refund for an order."""
    _check_room(account_id, _account(account_id, state, at), deposited.amount, at)
    return deposited


def withdraw(account_id: str, state: Account | None, at: datetime, withdrawn: MoneyWithdrawn) -> MoneyWithdrawn:
    """The event, where the account covers it at that time and ever since; also of a payment for an order."""
    _check_funds(account_id, _account(account_id, state, at), withdrawn.amount, at)
    return withdrawn


def check_currency(account_id: str, state: Account | None, currency: str) -> None:
    """Raises `AccountNotFound` or `CurrencyMismatch`."""
    if state is None:
        raise AccountNotFound(account_id)
    if state.currency != currency:
        raise CurrencyMismatch(account_id, state.currency, currency)


def _open(command: OpenAccount, state: Account | None) -> AccountOpened:
    if state is not None:
        raise AccountAlreadyOpen(command.account_id)
    return AccountOpened(command.owner_id, command.currency, command.overdraft_limit)


def _transfer(command: TransferMoney, states: States, at: datetime) -> EventsByStream:
    source_id, target_id = command.account_id, command.to_account_id
    if source_id == target_id:
        raise SameAccount(source_id)
    own, other = ACCOUNT.stream_of(source_id), ACCOUNT.stream_of(target_id)
    for account_id, state in ((source_id, states[own]), (target_id, states[other])):
        if state is None:  # also where it is another customer's: the transfer tells nothing about it
            raise AccountNotFound(account_id)
    transfer = TRANSFER.stream_of(command.transfer_id)
    recorded = TransferRecorded(command.transfer_id, source_id, target_id, command.amount, command.reference)
    if (known := states[transfer]) is not None:
        if known != recorded:
            raise TransferAlreadyRecorded(command.transfer_id)
        return {}
    source, target = _account(source_id, states[own], at), _account(target_id, states[other], at)
    check_currency(target_id, target, source.currency)
    _check_funds(source_id, source, command.amount, at)
    _check_room(target_id, target, command.amount, at)
    return {
        own: [TransferInitiated(command.transfer_id, target_id, command.amount, command.reference)],
        other: [TransferReceived(command.transfer_id, source_id, command.amount, command.reference)],
        transfer: [recorded],
    }


def _apply_interest(command: ApplyInterest, state: Account | None, at: datetime) -> InterestApplied:
    account_id, first, until = command.account_id, command.first, command.until
    account = _account(account_id, state, at)
    if until <= first:
        raise InterestPeriodEmpty(first, until)
    if first < account.open_from:
        raise DayClosed(account_id, first, account.open_from)
    if until > day_of(at):
        raise InterestPeriodNotOver(account_id, until, day_of(at))
    amount, remainder = account.interest(first, until, command.annual_rate_bps)
    _check_room(account_id, account, amount, at)
    return InterestApplied(command.annual_rate_bps, first, until, amount, remainder)


def _account(account_id: str, state: Account | None, at: datetime) -> Account:
    """The account, where it takes entries of that time."""
    if state is None:
        raise AccountNotFound(account_id)
    if at < state.opened_at:
        raise AccountNotOpenYet(account_id, at, state.opened_at)
    if (day := day_of(at)) < state.open_from:
        raise DayClosed(account_id, day, state.open_from)
    return state


def _check_funds(account_id: str, account: Account, amount: int, at: datetime) -> None:
    available = account.lowest_since(at) + account.overdraft_limit
    if amount > available:
        raise InsufficientFunds(account_id, amount, available, account.currency, exponent_of(account.currency))


def _check_room(account_id: str, account: Account, amount: int, at: datetime) -> None:
    if account.highest_closing_since(at) + amount > MAX_BALANCE:
        raise BalanceTooLarge(account_id, MAX_BALANCE, account.currency, exponent_of(account.currency))


def _account_id(command: AccountCommand) -> str:
    return command.account_id


def _other_streams(command: AccountCommand) -> Sequence[str]:
    if not isinstance(command, TransferMoney):
        return ()
    return (ACCOUNT.stream_of(command.to_account_id), TRANSFER.stream_of(command.transfer_id))


ACCOUNTS: Decider[AccountCommand, Account, AccountEvent] = Decider(
    aggregate=ACCOUNT,
    commands=get_args(AccountCommand),
    aggregate_id=_account_id,
    decide=None,
    begins=frozenset({OpenAccount}),
    streams=_other_streams,
    decide_over=decide,
)
