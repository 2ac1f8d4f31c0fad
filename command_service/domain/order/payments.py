"""Decides what happens to the payments of an order. Pure."""

from __future__ import annotations

from typing import assert_never

from command_service.domain.order.commands import (
    CapturePayment,
    ConfirmPayment,
    PaymentCommand,
    RecordPayment,
    RefundPayment,
    VoidPayment,
)
from command_service.domain.order.lines import require_pending
from command_service.domain.order.money_refusals import (
    CaptureExceedsAuthorisation,
    NothingToVoid,
    OrderNotPaid,
    PaymentAlreadyRecorded,
    PaymentNotFound,
    RefundAlreadyRecorded,
    RefundExceedsPayment,
)
from command_service.domain.order.refusals import PaymentAmountMismatch, TooManyEntries
from shared.aggregates.order import (
    Order,
    OrderConfirmed,
    OrderEvent,
    OrderStatus,
    Payment,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentConfirmed,
    PaymentReceived,
    PaymentRefunded,
    PaymentVoided,
)
from shared.currencies import exponent_of

MAX_PAYMENTS = 100
MAX_REFUNDS = 100


def decide(command: PaymentCommand, state: Order) -> list[OrderEvent]:
    match command:
        case ConfirmPayment():
            return _confirm(command, state)
        case RecordPayment():
            return _record(command, state)
        case CapturePayment():
            return _capture(command, state)
        case VoidPayment():
            return _void(command, state)
        case RefundPayment():
            return _refund(command, state)
        case _:
            assert_never(command)


def _confirm(command: ConfirmPayment, state: Order) -> list[OrderEvent]:
    known = state.payment(command.payment_reference)
    if state.status is not OrderStatus.CANCELLED and known is not None and _is_of(known, command.amount):
        return []
    require_pending(command.order_id, state)
    _require_unknown(command, state)
    if command.amount != (due := state.amount_due):
        exponent = exponent_of(state.currency)
        raise PaymentAmountMismatch(command.order_id, due, command.amount, state.currency, exponent)
    return [PaymentConfirmed(command.payment_reference, command.amount)]


def _record(command: RecordPayment, state: Order) -> list[OrderEvent]:
    """Accepted in every status: money that comes late is owed back."""
    known = state.payment(command.payment_reference)
    if (
        known is not None
        and (known.method, known.account_id) == (command.method, command.account_id)
        and _is_of(known, command.amount, authorised=not command.captured)
    ):
        return []
    _require_unknown(command, state)
    recorded: OrderEvent
    if command.captured:
        recorded = PaymentReceived(command.payment_reference, command.amount, command.method, command.account_id)
    else:
        recorded = PaymentAuthorised(command.payment_reference, command.amount, command.method)
    covers = state.paid + state.authorised + command.amount >= state.payable
    return [recorded, OrderConfirmed()] if covers and state.status is OrderStatus.PENDING else [recorded]


def _capture(command: CapturePayment, state: Order) -> list[OrderEvent]:
    payment = _find(command.order_id, command.payment_reference, state)
    if command.amount is None and not payment.open and payment.captured:
        return []
    amount = payment.open if command.amount is None else command.amount
    if not 0 < amount <= payment.open:
        raise CaptureExceedsAuthorisation(
            command.order_id,
            command.payment_reference,
            payment.open,
            amount,
            state.currency,
            exponent_of(state.currency),
        )
    return [PaymentCaptured(command.payment_reference, amount)]


def _void(command: VoidPayment, state: Order) -> list[OrderEvent]:
    payment = _find(command.order_id, command.payment_reference, state)
    if payment.open:
        return [PaymentVoided(command.payment_reference, payment.open, command.reason)]
    if payment.voided:
        return []
    raise NothingToVoid(command.order_id, command.payment_reference)


def _refund(command: RefundPayment, state: Order) -> list[OrderEvent]:
    payment = _find(command.order_id, command.payment_reference, state)
    for known in state.refunds:
        if known.refund_id == command.refund_id:
            given = command.payment_reference, command.amount, command.reason
            if given != (known.payment_reference, known.amount, known.reason):
                raise RefundAlreadyRecorded(command.order_id, command.refund_id)
            return []
    available = payment.captured - payment.refunded
    if command.amount > available:
        exponent = exponent_of(state.currency)
        raise RefundExceedsPayment(
            command.order_id, command.payment_reference, available, command.amount, state.currency, exponent
        )
    if len(state.refunds) >= MAX_REFUNDS:
        raise TooManyEntries(command.order_id, "refunds", MAX_REFUNDS)
    # A pending order can still be paid again; later on, it costs less by what was not owed back.
    not_owed = 0 if state.status is OrderStatus.PENDING else max(0, command.amount - state.refund_due)
    return [PaymentRefunded(command.refund_id, command.payment_reference, command.amount, command.reason, not_owed)]


def require_paid(order_id: str, state: Order) -> None:
    """Raises `OrderNotPaid` where an authorisation was voided since the order was confirmed."""
    if (missing := state.amount_due - state.authorised) > 0:
        raise OrderNotPaid(order_id, missing, state.currency, exponent_of(state.currency))


def _is_of(known: Payment, amount: int, *, authorised: bool = False) -> bool:
    """Whether the payment was recorded with these values."""
    return known.amount == amount and known.authorised is authorised


def _find(order_id: str, payment_reference: str, state: Order) -> Payment:
    if (payment := state.payment(payment_reference)) is None:
        raise PaymentNotFound(order_id, payment_reference)
    return payment


def _require_unknown(command: ConfirmPayment | RecordPayment, state: Order) -> None:
    """Raises `PaymentAlreadyRecorded` for a reference that the order has, and `TooManyEntries`."""
    if state.payment(command.payment_reference) is not None:
        raise PaymentAlreadyRecorded(command.order_id, command.payment_reference)
    if len(state.payments) >= MAX_PAYMENTS:
        raise TooManyEntries(command.order_id, "payments", MAX_PAYMENTS)
