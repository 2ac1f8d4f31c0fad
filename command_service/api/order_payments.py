"""The commands on the payments of an order."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter, Path, Request
from pydantic import ConfigDict, Field, StrictInt, model_validator
from pydantic_core import PydanticCustomError
from starlette.responses import Response
from uuid_utils import uuid7

from command_service.api.bodies import CommandBody, ShortText, Text
from command_service.api.commands import CommandRoute, carry_out, describe
from command_service.api.order_bodies import (
    ANY_ORDER_CHANGE,
    TOUR,
    Amount,
    OrderPaidAtOnceId,
    OrderPaidInPartId,
    PaymentReference,
)
from command_service.api.order_texts import NO_KEYS, seal_reason
from command_service.domain import account, order
from command_service.domain.account import MAX_BALANCE
from command_service.domain.order import MAX_PAYMENTS, MAX_REFUNDS, MAX_TOTAL
from shared.http.fields import Id
from shared.http.openapi import Described
from shared.identity.access import allowed, limited_to_owner
from shared.identity.caller import Role, RoleMissing

DESCRIPTION = "A ledger of the order's payments: authorised, captured and refunded in parts, voided."
router = APIRouter(tags=["payments"], route_class=CommandRoute)

# --- bodies --------------------------------------------------------------------------------------------------------


class ConfirmPaymentBody(CommandBody):
    payment_reference: ShortText = Field(examples=["pay-20260131-7"])
    amount: Annotated[StrictInt, Field(ge=0, le=MAX_TOTAL, description="minor units")] = Field(examples=[2220])


# A part of it is captured, the rest voided, by the examples of the commands that follow.
_RECORD_EXAMPLE: dict[str, Any] = {"payment_reference": "pay-20260131-8", "amount": 1000, "captured": False}


class RecordPaymentBody(CommandBody):
    model_config = ConfigDict(json_schema_extra={"examples": [_RECORD_EXAMPLE]})
    payment_reference: PaymentReference = Field(examples=["pay-20260131-8"])
    amount: Amount = Field(examples=[1000])
    captured: bool = Field(default=True, description="false: authorised only", strict=True, examples=[False])
    method: ShortText | None = Field(None, examples=["card"])
    account_id: Id | None = Field(None, description="the account that pays, at once", examples=["alice-main"])

    @model_validator(mode="after")
    def _captured_from_account(self) -> RecordPaymentBody:
        if self.account_id is not None and not self.captured:
            raise PydanticCustomError(
                "authorised-from-account", "Leave out account_id of an authorisation: an account pays at once."
            )
        return self


class CapturePaymentBody(CommandBody):
    model_config = ConfigDict(json_schema_extra={"examples": [{"amount": 600}]})
    amount: Amount | None = Field(None, description="all that is left unless given", examples=[600])


class VoidPaymentBody(CommandBody):
    reason: Text | None = Field(None, examples=["sold out"])


class RefundPaymentBody(CommandBody):
    refund_id: Id | None = Field(None, description="yours, or we make one", examples=["refund-1"])
    payment_reference: ShortText = Field(examples=["pay-20260131-8"])
    amount: Amount = Field(examples=[200])
    reason: Text = Field(examples=["arrived late"])


_ALL_OF_IT = CapturePaymentBody(occurred_at=None, amount=None)
_NO_REASON = VoidPaymentBody(occurred_at=None, reason=None)

# --- routes --------------------------------------------------------------------------------------------------------

Reference = Annotated[PaymentReference, Path(description="as it was recorded", examples=["pay-20260131-8"])]

_PAY = "pay-20260131-8"
_NOT_FOUND: Described = (order.PaymentNotFound(TOUR, _PAY), "The order has no such payment.")
_REFERENCE: tuple[Described, ...] = (
    (order.PaymentReferenceInUse(_PAY), "The payment reference belongs to another order."),
    (order.PaymentAlreadyRecorded(TOUR, _PAY), "The order has this payment with other values."),
    (order.TooManyEntries(TOUR, "payments", MAX_PAYMENTS), "The order has 100 payments."),
)


@router.post(
    "/orders/{order_id}/payment",
    summary="Confirm the payment",
    **describe(
        *ANY_ORDER_CHANGE,
        (order.OrderNotPending(TOUR, "SHIPPED"), "Only a PENDING order can be paid at once or changed."),
        (order.PaymentAmountMismatch(TOUR, 1_869, 1_000, "GBP", 2), "The amount does not equal what is due."),
        *_REFERENCE,
    ),
)
@allowed(Role.STAFF, Role.FINANCE, Role.SERVICE)
async def confirm_payment(request: Request, order_id: OrderPaidAtOnceId, body: ConfirmPaymentBody) -> Response:
    """All that is due is paid at once: PENDING becomes CONFIRMED. The same payment again changes nothing."""
    command = order.ConfirmPayment(order_id, body.payment_reference, body.amount)
    return await carry_out(request, command, body)


_ACCOUNT, _NOON = "alice-main", datetime(2026, 1, 31, 12, tzinfo=UTC)
_OF_THE_ACCOUNT: tuple[Described, ...] = (
    (account.AccountNotOpenYet(_ACCOUNT, _NOON, _NOON.replace(hour=14)), "The account was opened later."),
    (account.DayClosed(_ACCOUNT, _NOON.date(), _NOON.date()), "The account takes nothing for that day any more."),
)
_RECORDERS = (Role.STAFF, Role.FINANCE, Role.SERVICE)


@router.post(
    "/orders/{order_id}/payments",
    summary="Record a payment",
    **describe(
        *ANY_ORDER_CHANGE,
        *_REFERENCE,
        (account.AccountNotFound(_ACCOUNT), "There is no such account, or it is another customer's."),
        (account.CurrencyMismatch(_ACCOUNT, "EUR", "GBP"), "The account is in another currency than the order."),
        (account.InsufficientFunds(_ACCOUNT, 1_000, 600, "GBP", 2), "The account does not cover the amount."),
        *_OF_THE_ACCOUNT,
    ),
)
@allowed(Role.CUSTOMER, *_RECORDERS)
async def record_payment(request: Request, order_id: OrderPaidInPartId, body: RecordPaymentBody) -> Response:
    """Captured, or authorised only. A PENDING order becomes CONFIRMED once what was captured and authorised covers what
    it costs. Money that comes late, for a paid, changed or cancelled order, is recorded as well, and shows as
    `refund_due`. The same payment again changes nothing. With `account_id`, the amount is withdrawn from that account:
    both change, or neither. A customer pays its own orders from its own accounts."""
    if body.account_id is None and limited_to_owner(request.scope) is not None:
        raise RoleMissing(sorted(_RECORDERS))  # a customer cannot say that money came from elsewhere
    command = order.RecordPayment(
        order_id, body.payment_reference, body.amount, body.captured, body.method, body.account_id
    )
    return await carry_out(request, command, body)


@router.post(
    "/orders/{order_id}/payments/{payment_reference}/capture",
    summary="Capture an authorised payment",
    **describe(
        *ANY_ORDER_CHANGE,
        _NOT_FOUND,
        (order.CaptureExceedsAuthorisation(TOUR, _PAY, 400, 600, "GBP", 2), "Less is authorised and not captured."),
    ),
)
@allowed(Role.STAFF, Role.FINANCE, Role.SERVICE)
async def capture_payment(
    request: Request, order_id: OrderPaidInPartId, payment_reference: Reference, body: CapturePaymentBody = _ALL_OF_IT
) -> Response:
    """A part of the authorisation, or all that is left of it. Send an Idempotency-Key with an amount: the same amount
    again is captured again. The body may be left out."""
    return await carry_out(request, order.CapturePayment(order_id, payment_reference, body.amount), body)


@router.post(
    "/orders/{order_id}/payments/{payment_reference}/void",
    summary="Void an authorised payment",
    **describe(
        *ANY_ORDER_CHANGE,
        _NOT_FOUND,
        (order.NothingToVoid(TOUR, _PAY), "Nothing is authorised and not captured."),
        NO_KEYS,
    ),
)
@allowed(Role.STAFF, Role.FINANCE, Role.SERVICE)
async def void_payment(
    request: Request, order_id: OrderPaidInPartId, payment_reference: Reference, body: VoidPaymentBody = _NO_REASON
) -> Response:
    """Gives up what is left of the authorisation. A second time changes nothing. The body may be left out."""
    reason = None if body.reason is None else await seal_reason(request, order_id, body.reason)
    return await carry_out(request, order.VoidPayment(order_id, payment_reference, reason), body)


@router.post(
    "/orders/{order_id}/refunds",
    summary="Refund a payment",
    **describe(
        *ANY_ORDER_CHANGE,
        _NOT_FOUND,
        (order.RefundExceedsPayment(TOUR, _PAY, 400, 600, "GBP", 2), "Less was captured and not refunded."),
        (order.RefundAlreadyRecorded(TOUR, "refund-1"), "The order has this refund with other values."),
        (order.TooManyEntries(TOUR, "refunds", MAX_REFUNDS), "The order has 100 refunds."),
        *_OF_THE_ACCOUNT,
        (
            account.BalanceTooLarge(_ACCOUNT, MAX_BALANCE, "GBP", 2),
            "The account would hold 2^53 minor units.",
        ),
        NO_KEYS,
    ),
)
@allowed(Role.STAFF, Role.FINANCE, Role.SERVICE)
async def refund_payment(request: Request, order_id: OrderPaidInPartId, body: RefundPaymentBody) -> Response:
    """Records that an amount of a payment went back. Beyond `refund_due`, the order costs less by it, unless it is
    PENDING. What an account paid goes back to it: both change, or neither. The same refund again, by its id, changes
    nothing."""
    reason = await seal_reason(request, order_id, body.reason)
    command = order.RefundPayment(order_id, body.refund_id or str(uuid7()), body.payment_reference, body.amount, reason)
    return await carry_out(request, command, body)
