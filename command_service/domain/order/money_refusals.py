"""The refusals of commands on payments."""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import NotFound, Rejected


@dataclass
class PaymentNotFound(NotFound):
    order_id: str
    payment_reference: str
    code = "payment-not-found"
    title = "There is no such payment of the order"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} has no payment {self.payment_reference!r}."


@dataclass
class PaymentReferenceInUse(Rejected):
    payment_reference: str
    code = "payment-reference-in-use"
    title = "The payment reference belongs to another order"

    @property
    def detail(self) -> str:
        return f"Payment reference {self.payment_reference!r} belongs to another order; it belongs to one."


@dataclass
class PaymentAlreadyRecorded(Rejected):
    order_id: str
    payment_reference: str
    code = "payment-already-recorded"
    title = "The payment is recorded with other values"

    @property
    def detail(self) -> str:
        return (
            f"Order {self.order_id} has payment {self.payment_reference!r} with another amount, method or account."
            " Capture an authorisation, or use another reference."
        )


@dataclass
class _AmountRefused(Rejected):
    """`available` is the most that would be accepted."""

    order_id: str
    payment_reference: str
    available: int
    given: int
    currency: str
    currency_exponent: int


class CaptureExceedsAuthorisation(_AmountRefused):
    code = "capture-exceeds-authorisation"
    title = "There is less to capture"

    @property
    def detail(self) -> str:
        return (
            f"{self.available} of payment {self.payment_reference!r} can be captured, not {self.given} (minor units)."
        )


class RefundExceedsPayment(_AmountRefused):
    code = "refund-exceeds-payment"
    title = "There is less to refund"

    @property
    def detail(self) -> str:
        return (
            f"{self.available} of payment {self.payment_reference!r} can be refunded, not {self.given} (minor units)."
        )


@dataclass
class NothingToVoid(Rejected):
    order_id: str
    payment_reference: str
    code = "nothing-to-void"
    title = "Nothing of the payment can be voided"

    @property
    def detail(self) -> str:
        return f"Nothing of payment {self.payment_reference!r} is authorised and not captured; refund it instead."


@dataclass
class RefundAlreadyRecorded(Rejected):
    order_id: str
    refund_id: str
    code = "refund-already-recorded"
    title = "The refund is recorded with other values"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} has refund {self.refund_id!r} with another payment, amount or reason."


@dataclass
class OrderNotPaid(Rejected):
    order_id: str
    missing: int
    currency: str
    currency_exponent: int
    code = "order-not-paid"
    title = "The order is no longer paid or authorised in full"

    @property
    def detail(self) -> str:
        return f"Of order {self.order_id} {self.missing} (minor units) is neither paid nor authorised any more."
