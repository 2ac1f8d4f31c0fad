"""The five commands on accounts. Each is acknowledged or refused; none returns a balance."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import ConfigDict, Field, StrictInt
from starlette.responses import Response
from uuid_utils import uuid7

from command_service.api.bodies import CommandBody, Currency, ShortText
from command_service.api.commands import ANY_CHANGE, STALE, CommandRoute, carry_out, describe
from command_service.domain import account
from command_service.domain.account import MAX_BALANCE, MAX_RATE_BPS
from shared.http.fields import Date, Id
from shared.http.openapi import Described
from shared.identity.access import allowed
from shared.identity.caller import Role

DESCRIPTION = "A ledger of deposits, withdrawals, transfers and interest; never overdrawn beyond its limit."
router = APIRouter(tags=["accounts"], route_class=CommandRoute)

# --- bodies --------------------------------------------------------------------------------------------------------

Amount = Annotated[StrictInt, Field(ge=1, le=MAX_BALANCE, description="minor units (pence, cents)")]


class OpenAccountBody(CommandBody):
    account_id: Id | None = Field(None, description="yours, or we make one", examples=["alice-main"])
    owner_id: Id = Field(description="the customer whose account it is", examples=["alice"])
    currency: Currency = Field(examples=["GBP"])
    overdraft_limit: Annotated[StrictInt, Field(ge=0, le=MAX_BALANCE, description="minor units")] = Field(
        0, examples=[10_000]
    )


class EntryBody(CommandBody):
    amount: Amount = Field(examples=[5_000])
    reference: ShortText = Field(examples=["salary 2026-01"])


# The reference of the query service shows this transfer.
_TRANSFER_EXAMPLE: dict[str, Any] = {
    "transfer_id": "rent-2026-01",
    "from_account_id": "alice-main",
    "to_account_id": "alice-savings",
    "amount": 1_200,
    "reference": "savings 2026-01",
}


class TransferBody(CommandBody):
    model_config = ConfigDict(json_schema_extra={"examples": [_TRANSFER_EXAMPLE]})
    transfer_id: Id | None = Field(
        None,
        description="yours, or we make one; both statements show it. The same transfer again, by its id, moves no"
        " more money",
        examples=["rent-2026-01"],
    )
    from_account_id: Id = Field(examples=["alice-main"])
    to_account_id: Id = Field(examples=["alice-savings"])
    amount: Amount = Field(examples=[1_200])
    reference: ShortText = Field(examples=["savings 2026-01"])


class InterestBody(CommandBody):
    annual_rate_bps: Annotated[StrictInt, Field(ge=0, le=MAX_RATE_BPS, description="125 is 1.25 % a year")] = Field(
        examples=[125]
    )
    first: Date = Field(alias="from", description="the first day, in UTC", examples=["2026-01-01"])
    until: Date = Field(alias="to", description="the day after the last one", examples=["2026-02-01"])


# --- routes --------------------------------------------------------------------------------------------------------

AccountId = Annotated[Id, Path(description="as given or made when the account was opened", examples=["alice-main"])]
# Nothing else changes it in the reference: interest is for days that no later entry has closed.
SavingsId = Annotated[Id, Path(description="as given or made when the account was opened", examples=["alice-savings"])]

_MAIN = "alice-main"
_NOON = datetime(2026, 1, 31, 12, tzinfo=UTC)
_FEBRUARY = date(2026, 2, 1)
_ANY_ENTRY: tuple[Described, ...] = (
    (account.AccountNotFound(_MAIN), "There is no such account."),
    (
        account.AccountNotOpenYet(_MAIN, _NOON, _NOON.replace(hour=14)),
        "occurred_at lies before the account was opened.",
    ),
    (account.DayClosed(_MAIN, _NOON.date(), _FEBRUARY), "Interest was paid for the day, or it is too long ago."),
    *ANY_CHANGE,
)
_NOT_COVERED: Described = (
    account.InsufficientFunds(_MAIN, 5_000, 3_800, "GBP", 2),
    "The lowest balance since then, with the overdraft limit, does not cover the amount.",
)
_TOO_LARGE: Described = (
    account.BalanceTooLarge(_MAIN, MAX_BALANCE, "GBP", 2),
    "The balance would reach 2^53 minor units.",
)


@router.post(
    "/accounts",
    summary="Open an account",
    **describe((account.AccountAlreadyOpen(_MAIN), "There is an account with this id."), STALE, status=201),
)
@allowed(Role.STAFF, Role.FINANCE, Role.SERVICE)
async def open_account(request: Request, body: OpenAccountBody) -> Response:
    """For a customer, in one currency. Without `account_id` we make one; the acknowledgement names it."""
    account_id = body.account_id or str(uuid7())
    command = account.OpenAccount(account_id, body.owner_id, body.currency, body.overdraft_limit)
    return await carry_out(request, command, body, created_under="/accounts")


@router.post("/accounts/{account_id}/deposits", summary="Deposit money", **describe(*_ANY_ENTRY, _TOO_LARGE))
@allowed(Role.STAFF, Role.FINANCE, Role.SERVICE)
async def deposit_money(request: Request, account_id: AccountId, body: EntryBody) -> Response:
    """`occurred_at` may lie before the latest entry, on a day that is open."""
    return await carry_out(request, account.DepositMoney(account_id, body.amount, body.reference), body)


@router.post("/accounts/{account_id}/withdrawals", summary="Withdraw money", **describe(*_ANY_ENTRY, _NOT_COVERED))
@allowed(Role.CUSTOMER, Role.STAFF, Role.FINANCE, Role.SERVICE)
async def withdraw_money(request: Request, account_id: AccountId, body: EntryBody) -> Response:
    """Where `occurred_at` lies before the latest entry, every balance since then covers it, by whole days."""
    return await carry_out(request, account.WithdrawMoney(account_id, body.amount, body.reference), body)


@router.post(
    "/accounts/{account_id}/interest",
    summary="Apply interest",
    **describe(
        *_ANY_ENTRY,
        (account.InterestPeriodEmpty(_FEBRUARY, _FEBRUARY), "The period has no days."),
        (account.InterestPeriodNotOver(_MAIN, _FEBRUARY, _NOON.date()), "A day of the period is not over."),
        _TOO_LARGE,
    ),
)
@allowed(Role.FINANCE, Role.SERVICE)
async def apply_interest(request: Request, account_id: SavingsId, body: InterestBody) -> Response:
    """On the closing balance of each day, where it is above zero; a year has 365 days. What is less than a minor unit
    is carried to the next interest. Days for which interest was paid are closed."""
    command = account.ApplyInterest(account_id, body.annual_rate_bps, body.first, body.until)
    return await carry_out(request, command, body)


@router.post(
    "/transfers",
    summary="Transfer money",
    **describe(
        *_ANY_ENTRY,
        (account.SameAccount(_MAIN), "Both accounts are the same."),
        (account.TransferAlreadyRecorded("rent-2026-01"), "The id is that of a transfer with other values."),
        (account.CurrencyMismatch("alice-savings", "EUR", "GBP"), "The accounts are in different currencies."),
        _NOT_COVERED,
        _TOO_LARGE,
    ),
)
@allowed(Role.CUSTOMER, Role.STAFF, Role.FINANCE, Role.SERVICE)
async def transfer_money(request: Request, body: TransferBody) -> Response:
    """Both accounts change, or neither. The acknowledgement is of the account that pays. A customer transfers between
    accounts of its own. The same transfer again, by its id, changes nothing."""
    transfer_id = body.transfer_id or str(uuid7())
    command = account.TransferMoney(body.from_account_id, body.to_account_id, transfer_id, body.amount, body.reference)
    return await carry_out(request, command, body)
