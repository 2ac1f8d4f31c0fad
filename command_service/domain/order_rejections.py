"""Why a command on an order is refused: one typed error a rule, carrying what its reader needs."""

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
        return f"Order {self.order_id} is {self.order_status}; only a PENDING order can be paid or changed."


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
    code = "payment-amount-mismatch"
    title = "The payment does not equal the order's total"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} costs {self.expected}, the payment is {self.given} (minor units)."


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
    code = "order-total-too-large"
    title = "The order's total is too large"

    @property
    def detail(self) -> str:
        return f"Order {self.order_id} would cost {self.total}; the largest total is {self.maximum} (minor units)."
