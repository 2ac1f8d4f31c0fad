"""The refusals of commands on an order and its lines."""

from __future__ import annotations

from dataclasses import dataclass

from shared.errors import Invalid, NotFound, Rejected


@dataclass
class OrderNotFound(NotFound):
    order_id: str
    code = "order-not-found"
    title = "There is no such order"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} has not been placed."


@dataclass
class LineNotFound(NotFound):
    order_id: str
    line_id: str
    code = "line-not-found"
    title = "There is no such line on the order"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} has no line {self.line_id!r}."


@dataclass
class ItemNotFound(NotFound):
    order_id: str
    product_id: str
    code = "item-not-found"
    title = "There is no such line on the order"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} has no line of product {self.product_id}."


@dataclass
class OrderAlreadyPlaced(Rejected):
    order_id: str
    code = "order-already-placed"
    title = "The order has already been placed"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} exists; an order is placed once."


@dataclass
class OrderNotPending(Rejected):
    order_id: str
    order_status: str
    code = "order-not-pending"
    title = "The order is no longer pending"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} is {self.order_status}; only a PENDING order can be paid at once or changed."


@dataclass
class OrderNotConfirmed(Rejected):
    order_id: str
    order_status: str
    code = "order-not-confirmed"
    title = "The order is not waiting for shipment"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} is {self.order_status}; only a CONFIRMED (paid) order can be shipped."


@dataclass
class OrderNotShipped(Rejected):
    order_id: str
    order_status: str
    code = "order-not-shipped"
    title = "The order is not on its way"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} is {self.order_status}; only a SHIPPED order can be delivered."


@dataclass
class OrderNotCancellable(Rejected):
    order_id: str
    order_status: str
    code = "order-not-cancellable"
    title = "The order can no longer be cancelled"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} is {self.order_status}; only a PENDING or CONFIRMED order can be cancelled."


@dataclass
class PaymentAmountMismatch(Rejected):
    order_id: str
    expected: int
    given: int
    currency: str
    currency_exponent: int
    code = "payment-amount-mismatch"
    title = "The payment does not equal what is due"

    @property
    def detail(self) -> str:
        return f"Of order {self.order_id} {self.expected} is due, the payment is {self.given} (minor units)."


@dataclass
class OrderNeedsALine(Rejected):
    order_id: str
    product_id: str | None
    code = "order-needs-a-line"
    title = "An order keeps at least one line"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} would be left without a line; cancel it instead."


@dataclass
class TooManyLines(Invalid):
    order_id: str
    maximum: int
    code = "too-many-lines"
    title = "The order has too many lines"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} may have at most {self.maximum} lines."


@dataclass
class OrderTotalTooLarge(Invalid):
    order_id: str
    total: int
    maximum: int
    currency: str
    currency_exponent: int
    code = "order-total-too-large"
    title = "The order's total is too large"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} would cost {self.total}; the largest total is {self.maximum} (minor units)."


@dataclass
class OrderTooLarge(Invalid):
    order_id: str
    maximum: int
    code = "order-too-large"
    title = "The order is too large"

    @property
    def detail(self) -> str:
        return (
            f"The lines and charges of order {self.order_id} may take at most {self.maximum} bytes. Shorten product"
            " names or metadata."
        )


@dataclass
class DuplicateLineId(Rejected):
    order_id: str
    line_id: str
    code = "duplicate-line-id"
    title = "Two lines have one id"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} has a line {self.line_id!r} already; each line has an id of its own."


@dataclass
class DuplicateChargeId(Invalid):
    order_id: str
    charge_id: str
    code = "duplicate-charge-id"
    title = "Two charges have one id"

    @property
    def detail(self) -> str:
        return f"Two charges of order {self.order_id} have the id {self.charge_id!r}."


@dataclass
class ChargeOfUnknownLine(Invalid):
    order_id: str
    line_id: str
    code = "charge-of-unknown-line"
    title = "A charge names a line that is not on the order"

    @property
    def detail(self) -> str:
        return f"A charge names line {self.line_id!r}, which order {self.order_id} does not have."


@dataclass
class NegativeAmount(Rejected):
    """Of a line with its charges, or of the order where `line_id` is None."""

    order_id: str
    line_id: str | None
    amount: int
    currency: str
    currency_exponent: int
    code = "negative-amount"
    title = "A discount exceeds what it is taken from"

    @property
    def detail(self) -> str:
        what = f"Order {self.order_id}" if self.line_id is None else f"Line {self.line_id!r} of order {self.order_id}"
        return f"{what} would cost {self.amount} (minor units) with its charges; the least is 0."


@dataclass
class TooManyEntries(Rejected):
    """`of` names the list of the order that is full."""

    order_id: str
    of: str
    maximum: int
    code = "too-many-entries"
    title = "The order has too many entries of this kind"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} may have at most {self.maximum} {self.of}."
