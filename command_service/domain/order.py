"""The order: its commands, its refusals, and every rule that decides. Pure; state and `evolve` are in
`shared/aggregates/order.py`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never, get_args

import msgspec

from command_service.domain.decider import Decider
from shared.aggregates.order import (
    ORDER,
    Order,
    OrderCancelled,
    OrderDelivered,
    OrderEvent,
    OrderItemAdded,
    OrderItemRemoved,
    OrderLine,
    OrderPlaced,
    OrderShipped,
    OrderStatus,
    PaymentConfirmed,
    ShippingAddressChanged,
    State,
    total_of,
)
from shared.currencies import exponent_of
from shared.errors import Invalid, NotFound, Rejected
from shared.exact_integers import MAX_EXACT_INTEGER

MAX_LINES = 2_000
MAX_UNIT_PRICE = 10**12  # a laptop costs IDR 15,000,000.00
MAX_TOTAL = MAX_EXACT_INTEGER
MAX_BYTES = 640 * 1024  # of an order's lines as JSON: every change writes its document anew
_MAX_LINE_BYTES = 2_300  # an id of 64 characters, a name of 500 that take 4 bytes each, and the rest


# --- commands ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PlaceOrder:
    order_id: str
    customer_id: str
    currency: str
    items: tuple[OrderLine, ...]
    shipping_address_id: str


@dataclass(frozen=True, slots=True)
class AddOrderItem:
    order_id: str
    item: OrderLine


@dataclass(frozen=True, slots=True)
class RemoveOrderItem:
    order_id: str
    product_id: str


@dataclass(frozen=True, slots=True)
class ChangeShippingAddress:
    order_id: str
    shipping_address_id: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ConfirmPayment:
    order_id: str
    payment_reference: str
    amount: int


@dataclass(frozen=True, slots=True)
class ShipOrder:
    order_id: str
    tracking_number: str
    carrier: str | None = None


@dataclass(frozen=True, slots=True)
class ConfirmDelivery:
    order_id: str


@dataclass(frozen=True, slots=True)
class CancelOrder:
    order_id: str
    reason: str


OrderCommand = (
    PlaceOrder
    | AddOrderItem
    | RemoveOrderItem
    | ChangeShippingAddress
    | ConfirmPayment
    | ShipOrder
    | ConfirmDelivery
    | CancelOrder
)


# --- refusals ------------------------------------------------------------------------------------------------------


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
    currency: str
    currency_exponent: int
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
        return f"The lines of order {self.order_id} may take at most {self.maximum} bytes. Shorten product names."


# --- decide --------------------------------------------------------------------------------------------------------


def decide(command: OrderCommand, state: State) -> list[OrderEvent]:
    """The events that the command leads to. Raises one of the refusals."""
    if isinstance(command, PlaceOrder):
        return _place(command, state)
    if state is None:
        raise OrderNotFound(command.order_id)
    match command:
        case AddOrderItem():
            return _add_item(command, state)
        case RemoveOrderItem():
            return _remove_item(command, state)
        case ChangeShippingAddress():
            return _change_address(command, state)
        case ConfirmPayment():
            return _confirm_payment(command, state)
        case ShipOrder():
            return _ship(command, state)
        case ConfirmDelivery():
            return _confirm_delivery(command, state)
        case CancelOrder():
            return _cancel(command, state)
        case _:
            assert_never(command)


def _place(command: PlaceOrder, state: State) -> list[OrderEvent]:
    if state is not None:
        raise OrderAlreadyPlaced(command.order_id)
    _check_bounds(command.order_id, command.currency, command.items)
    return [OrderPlaced(command.customer_id, command.currency, command.items, command.shipping_address_id)]


def _add_item(command: AddOrderItem, state: Order) -> list[OrderEvent]:
    _require_pending(command.order_id, state)
    _check_bounds(command.order_id, state.currency, (*state.items, command.item))
    return [OrderItemAdded(command.item)]


def _remove_item(command: RemoveOrderItem, state: Order) -> list[OrderEvent]:
    _require_pending(command.order_id, state)
    products = {line.product_id for line in state.items}
    if command.product_id not in products:
        raise ItemNotFound(command.order_id, command.product_id)
    if products == {command.product_id}:
        raise OrderNeedsALine(command.order_id, command.product_id)
    return [OrderItemRemoved(command.product_id)]


def _change_address(command: ChangeShippingAddress, state: Order) -> list[OrderEvent]:
    _require_pending(command.order_id, state)
    if command.shipping_address_id == state.shipping_address_id:
        return []
    return [ShippingAddressChanged(command.shipping_address_id, command.reason)]


def _confirm_payment(command: ConfirmPayment, state: Order) -> list[OrderEvent]:
    paid = PaymentConfirmed(command.payment_reference, command.amount)
    if state.payment == paid and state.status is not OrderStatus.CANCELLED:
        return []
    _require_pending(command.order_id, state)
    if command.amount != state.total:
        exponent = exponent_of(state.currency)
        raise PaymentAmountMismatch(command.order_id, state.total, command.amount, state.currency, exponent)
    return [paid]


def _ship(command: ShipOrder, state: Order) -> list[OrderEvent]:
    shipped = OrderShipped(command.tracking_number, command.carrier)
    if state.shipment == shipped:
        return []
    if state.status is not OrderStatus.CONFIRMED:
        raise OrderNotConfirmed(command.order_id, state.status)
    return [shipped]


def _confirm_delivery(command: ConfirmDelivery, state: Order) -> list[OrderEvent]:
    if state.status is OrderStatus.DELIVERED:
        return []
    if state.status is not OrderStatus.SHIPPED:
        raise OrderNotShipped(command.order_id, state.status)
    return [OrderDelivered()]


def _cancel(command: CancelOrder, state: Order) -> list[OrderEvent]:
    if state.cancellation is not None and state.cancellation.reason == command.reason:
        return []
    if state.status not in (OrderStatus.PENDING, OrderStatus.CONFIRMED):
        raise OrderNotCancellable(command.order_id, state.status)
    return [OrderCancelled(command.reason, refund_amount=state.payment.amount if state.payment else 0)]


def _require_pending(order_id: str, state: Order) -> None:
    if state.status is not OrderStatus.PENDING:
        raise OrderNotPending(order_id, state.status)


def _check_bounds(order_id: str, currency: str, items: tuple[OrderLine, ...]) -> None:
    if not items:
        raise OrderNeedsALine(order_id, None)
    if len(items) > MAX_LINES:
        raise TooManyLines(order_id, MAX_LINES)
    if len(items) * _MAX_LINE_BYTES > MAX_BYTES and len(msgspec.json.encode(items)) > MAX_BYTES:
        raise OrderTooLarge(order_id, MAX_BYTES)
    if (total := total_of(items)) > MAX_TOTAL:
        raise OrderTotalTooLarge(order_id, total, MAX_TOTAL, currency, exponent_of(currency))


def _order_id(command: OrderCommand) -> str:
    return command.order_id


ORDERS: Decider[OrderCommand, Order, OrderEvent] = Decider(
    aggregate=ORDER,
    commands=get_args(OrderCommand),
    aggregate_id=_order_id,
    decide=decide,
    begins=frozenset({PlaceOrder}),
)
