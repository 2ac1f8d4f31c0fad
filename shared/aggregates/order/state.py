"""The state of the order, and `evolve`. Pure."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import assert_never

import msgspec
from msgspec.structs import replace as changed

from shared.aggregates.address import Address
from shared.aggregates.order.events import (
    Charge,
    ItemEvent,
    ItemsShipped,
    LineQuantity,
    MoneyEvent,
    OrderCancelled,
    OrderConfirmed,
    OrderDelivered,
    OrderEvent,
    OrderHeld,
    OrderHoldReleased,
    OrderItemAdded,
    OrderItemRemoved,
    OrderItemsReserved,
    OrderLine,
    OrderLineQuantityChanged,
    OrderPlaced,
    OrderReservationExpired,
    OrderShipped,
    ParcelEvent,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentConfirmed,
    PaymentReceived,
    PaymentRefunded,
    PaymentVoided,
    ReceivedLine,
    ReturnReceived,
    ReturnRequested,
    ShipmentDelivered,
    ShippingAddressChanged,
)
from shared.aggregates.order.lines import lines_by_id, next_id, quantities, total_of, with_id


class OrderStatus(StrEnum):
    PENDING = "PENDING"
    CONFIRMED = "CONFIRMED"
    SHIPPED = "SHIPPED"
    DELIVERED = "DELIVERED"
    CANCELLED = "CANCELLED"


class Payment(msgspec.Struct, frozen=True, gc=False):
    """What became of one payment. `amount` was authorised, or captured at once."""

    payment_reference: str
    amount: int
    authorised: bool
    captured: int = 0
    voided: int = 0
    refunded: int = 0
    method: str | None = None
    account_id: str | None = None

    @property
    def open(self) -> int:
        """What can still be captured."""
        return self.amount - self.captured - self.voided if self.authorised else 0


class Shipment(msgspec.Struct, frozen=True):
    shipment_id: str
    tracking_number: str
    carrier: str | None
    lines: tuple[LineQuantity, ...]
    delivered: bool = False


class Return(msgspec.Struct, frozen=True):
    return_id: str
    lines: tuple[LineQuantity, ...]
    reason: str
    received: tuple[ReceivedLine, ...] = ()


@dataclass(frozen=True, slots=True)
class Order:
    """An order at one version."""

    status: OrderStatus
    customer_id: str
    currency: str
    items: tuple[OrderLine, ...]  # as they were given; `lines` have ids
    shipping_address_id: str
    shipping_address: Address | None = None
    charges: tuple[Charge, ...] = ()
    lines_removed: int = 0
    payments: tuple[Payment, ...] = ()
    refunds: tuple[PaymentRefunded, ...] = ()
    price_reduction: int = 0  # by returns, and by refunds of what was not owed
    shipments: tuple[Shipment, ...] = ()
    returns: tuple[Return, ...] = ()
    hold: OrderHeld | None = None
    cancellation: OrderCancelled | None = None
    reserved_products: tuple[str, ...] = ()  # of which all pieces that are left to ship are reserved
    expired_products: tuple[str, ...] = ()  # whose reservation expired

    @property
    def lines(self) -> dict[str, OrderLine]:
        """The items by their ids, each with its id."""
        return lines_by_id(self.items)

    @property
    def total(self) -> int:
        return total_of(self.items, self.charges)

    @property
    def payable(self) -> int:
        """What the order costs after all reductions; nothing once it is cancelled."""
        return 0 if self.cancellation else self.total - self.price_reduction

    @property
    def paid(self) -> int:
        """What was captured and not refunded."""
        return sum([payment.captured - payment.refunded for payment in self.payments])

    @property
    def authorised(self) -> int:
        """What can still be captured."""
        return sum([payment.open for payment in self.payments])

    @property
    def amount_due(self) -> int:
        return max(0, self.payable - self.paid)

    @property
    def refund_due(self) -> int:
        return max(0, self.paid - self.payable)

    def payment(self, payment_reference: str) -> Payment | None:
        return next((one for one in self.payments if one.payment_reference == payment_reference), None)

    def left_to_ship(self) -> dict[str, int]:
        """Pieces by line, of lines that have any."""
        shipped = quantities(line for shipment in self.shipments for line in shipment.lines)
        lines = self.lines.items()
        return {line_id: left for line_id, line in lines if (left := line.quantity - shipped.get(line_id, 0))}

    def reserved(self) -> dict[str, int]:
        """Pieces by product, of products that the order has reserved pieces of."""
        if not self.reserved_products or self.cancellation is not None:
            return {}
        pieces: dict[str, int] = {}
        lines, reserved = self.lines, frozenset(self.reserved_products)
        for line_id, left in self.left_to_ship().items():
            product_id = lines[line_id].product_id
            if product_id in reserved:
                pieces[product_id] = pieces.get(product_id, 0) + left
        return pieces


State = Order | None  # None: not placed yet


def evolve(state: State, event: OrderEvent) -> Order:
    """The state after the event. The log is trusted: what was decided once is not judged again."""
    if isinstance(event, OrderPlaced):
        return Order(
            OrderStatus.PENDING,
            event.customer_id,
            event.currency,
            event.items,
            event.shipping_address_id,
            event.shipping_address,
            event.charges,
        )
    assert state is not None, "an order's stream begins with OrderPlaced"
    if isinstance(event, MoneyEvent):
        return _evolve_money(state, event)
    if isinstance(event, ParcelEvent):
        return _evolve_parcels(state, event)
    return _evolve_items(state, event)


def _evolve_items(state: Order, event: ItemEvent) -> Order:
    match event:
        case OrderItemAdded(item):
            added = with_id(item, state.lines) if state.lines_removed else item
            return replace(state, items=(*state.items, added))
        case OrderItemRemoved(product_id):
            return _with_lines(state, [line for line in state.lines.values() if line.product_id != product_id])
        case OrderLineQuantityChanged(line_id, quantity=quantity):
            lines = state.lines
            lines[line_id] = changed(lines[line_id], quantity=quantity)
            return _with_lines(state, [line for line in lines.values() if line.quantity])
        case ShippingAddressChanged(address_id, shipping_address=address):
            return replace(state, shipping_address_id=address_id, shipping_address=address)
        case OrderHeld():
            return replace(state, hold=event)
        case OrderHoldReleased():
            return replace(state, hold=None)
        case OrderItemsReserved(products):
            again = frozenset(products)
            others = [product for product in state.reserved_products if product not in again]
            expired = tuple([product for product in state.expired_products if product not in again])
            return replace(state, reserved_products=(*others, *products), expired_products=expired)
        case OrderReservationExpired():
            expired = (*state.expired_products, *state.reserved_products)
            return replace(state, reserved_products=(), expired_products=expired)
        case _:
            assert_never(event)


def _evolve_money(state: Order, event: MoneyEvent) -> Order:
    match event:
        case PaymentConfirmed(reference, amount):
            payment = Payment(reference, amount, authorised=False, captured=amount)
            return replace(state, status=OrderStatus.CONFIRMED, payments=(*state.payments, payment))
        case PaymentAuthorised(reference, amount, method):
            payment = Payment(reference, amount, authorised=True, method=method)
            return replace(state, payments=(*state.payments, payment))
        case PaymentReceived(reference, amount, method, account_id):
            payment = Payment(
                reference, amount, authorised=False, captured=amount, method=method, account_id=account_id
            )
            return replace(state, payments=(*state.payments, payment))
        case PaymentCaptured(reference, amount):
            return _with_payment(state, reference, captured=amount)
        case PaymentVoided(reference, amount):
            return _with_payment(state, reference, voided=amount)
        case PaymentRefunded(_, reference, amount):
            after = _with_payment(state, reference, refunded=amount)
            reduction = state.price_reduction + event.price_reduction
            return replace(after, refunds=(*state.refunds, event), price_reduction=reduction)
        case OrderConfirmed():
            return replace(state, status=OrderStatus.CONFIRMED)
        case OrderCancelled():
            return replace(state, status=OrderStatus.CANCELLED, cancellation=event, hold=None)
        case _:
            assert_never(event)


def _evolve_parcels(state: Order, event: ParcelEvent) -> Order:
    match event:
        case OrderShipped():
            return replace(state, status=OrderStatus.SHIPPED, shipments=(*state.shipments, _all_left(state, event)))
        case ItemsShipped(shipment_id, tracking_number, shipped, carrier):
            shipment = Shipment(shipment_id, tracking_number, carrier, shipped)
            return replace(state, shipments=(*state.shipments, shipment))
        case ShipmentDelivered(shipment_id):
            shipments = [
                changed(one, delivered=True) if one.shipment_id == shipment_id else one for one in state.shipments
            ]
            return replace(state, shipments=tuple(shipments))
        case OrderDelivered():
            delivered = tuple([changed(shipment, delivered=True) for shipment in state.shipments])
            return replace(state, status=OrderStatus.DELIVERED, shipments=delivered)
        case ReturnRequested(return_id, requested, reason):
            return replace(state, returns=(*state.returns, Return(return_id, requested, reason)))
        case ReturnReceived(return_id, received, reduction):
            returns = [
                changed(one, received=(*one.received, *received)) if one.return_id == return_id else one
                for one in state.returns
            ]
            return replace(state, returns=tuple(returns), price_reduction=state.price_reduction + reduction)
        case _:
            assert_never(event)


def _with_lines(state: Order, lines: list[OrderLine]) -> Order:
    """With these of its lines, and the charges that are of them or of the order."""
    ids = {line.line_id for line in lines}
    charges = tuple([charge for charge in state.charges if charge.line_id is None or charge.line_id in ids])
    removed = state.lines_removed + len(state.items) - len(lines)
    return replace(state, items=tuple(lines), charges=charges, lines_removed=removed)


def _with_payment(
    state: Order, payment_reference: str, *, captured: int = 0, voided: int = 0, refunded: int = 0
) -> Order:
    """With these amounts added to the payment."""
    payments = [
        changed(one, captured=one.captured + captured, voided=one.voided + voided, refunded=one.refunded + refunded)
        if one.payment_reference == payment_reference
        else one
        for one in state.payments
    ]
    return replace(state, payments=tuple(payments))


def _all_left(state: Order, event: OrderShipped) -> Shipment:
    taken = {shipment.shipment_id for shipment in state.shipments}
    shipment_id = event.shipment_id or next_id(len(taken) + 1, taken)
    lines = tuple([LineQuantity(line_id, count) for line_id, count in state.left_to_ship().items()])
    return Shipment(shipment_id, event.tracking_number, event.carrier, lines)
