"""How each event of an order changes its document, for the read model and for time travel. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any, TypeVar, get_args

import msgspec
from msgspec.structs import replace

from shared.aggregates.order.document import (
    Cancellation,
    FulfilmentStatus,
    OrderCharge,
    OrderDocument,
    OrderItem,
    OrderPayment,
    OrderRefund,
    OrderReturn,
    OrderShipment,
    PaymentStatus,
    ReturnedLine,
)
from shared.aggregates.order.events import (
    Charge,
    ItemsShipped,
    LineQuantity,
    OrderCancelled,
    OrderConfirmed,
    OrderDelivered,
    OrderEvent,
    OrderHeld,
    OrderHoldReleased,
    OrderItemAdded,
    OrderItemRemoved,
    OrderItemsReserved,
    OrderLineQuantityChanged,
    OrderPlaced,
    OrderReservationExpired,
    OrderShipped,
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
from shared.aggregates.order.lines import charged_amounts, line_ids, next_id, quantities
from shared.aggregates.order.state import OrderStatus
from shared.currencies import exponent_of

Changes = dict[str, Any]  # new values of fields of the document


def apply(
    order_id: str, document: OrderDocument | None, event: OrderEvent, version: int, at: datetime
) -> OrderDocument:
    """The document after the event, which is that version of the order and happened then."""
    if type(event) is OrderPlaced:
        return _placed(order_id, event, version, at)
    assert document is not None, "an order's stream begins with OrderPlaced"
    changes = _CHANGES[type(event)](document, event, at)
    return replace(document, version=version, last_event_at=at, **changes)


def _placed(order_id: str, event: OrderPlaced, version: int, at: datetime) -> OrderDocument:
    lines = zip(line_ids(event.items), event.items, strict=True)
    items, charges = _priced([OrderItem.of(line_id, line) for line_id, line in lines], event.charges)
    total = _total(items, charges)
    return OrderDocument(
        order_id=order_id,
        customer_id=event.customer_id,
        status=OrderStatus.PENDING,
        currency=event.currency,
        currency_exponent=exponent_of(event.currency),
        total_amount=total,
        item_count=len(items),
        items=items,
        charges=charges,
        shipping_address_id=event.shipping_address_id,
        shipping_address=event.shipping_address,
        tracking_number=None,
        payment_status=PaymentStatus.UNPAID,
        fulfilment_status=FulfilmentStatus.UNFULFILLED,
        on_hold=False,
        hold_reason=None,
        amount_payable=total,
        amount_authorised=0,
        amount_paid=0,
        amount_refunded=0,
        amount_due=total,
        refund_due=0,
        payments=(),
        refunds=(),
        shipments=(),
        returns=(),
        cancellation=None,
        external_reference=event.external_reference,
        note=event.note,
        metadata=event.metadata,
        placed_at=at,
        confirmed_at=None,
        shipped_at=None,
        delivered_at=None,
        last_event_at=at,
        version=version,
    )


# --- lines ---------------------------------------------------------------------------------------------------------


def _priced(
    items: Sequence[OrderItem], charges: Sequence[Charge | OrderCharge]
) -> tuple[tuple[OrderItem, ...], tuple[OrderCharge, ...]]:
    """Each with what it is charged."""
    if not charges:  # the last one may have gone with its line
        uncharged = [item if item.charged_amount is None else replace(item, charged_amount=None) for item in items]
        return tuple(uncharged), ()
    amounts = charged_amounts({item.line_id: item.line_total for item in items}, charges)
    return (
        tuple([replace(item, charged_amount=amounts.lines[item.line_id]) for item in items]),
        tuple([OrderCharge.of(charge, amounts.charges[charge.charge_id]) for charge in charges]),
    )


def _total(items: Iterable[OrderItem], charges: Iterable[OrderCharge]) -> int:
    return sum([item.line_total for item in items]) + sum([charge.amount for charge in charges])


def _item_added(document: OrderDocument, event: OrderItemAdded, _at: datetime) -> Changes:
    items = document.items
    line_id = event.item.line_id or next_id(len(items) + 1, {item.line_id for item in items})
    return _with_items(document, [*items, OrderItem.of(line_id, event.item)])


def _item_removed(document: OrderDocument, event: OrderItemRemoved, _at: datetime) -> Changes:
    return _with_items(document, [item for item in document.items if item.product_id != event.product_id])


def _quantity_changed(document: OrderDocument, event: OrderLineQuantityChanged, _at: datetime) -> Changes:
    items = [_with_quantity(item, event) for item in document.items]
    return _with_items(document, [item for item in items if item.quantity])


def _with_items(document: OrderDocument, items: Sequence[OrderItem]) -> Changes:
    ids = {item.line_id for item in items}
    of_these = [charge for charge in document.charges if charge.line_id is None or charge.line_id in ids]
    items, charges = _priced(items, of_these)
    total = _total(items, charges)
    changes = {"items": items, "charges": charges, "item_count": len(items), "total_amount": total}
    reduced = document.total_amount - document.amount_payable
    return changes | _money(document, payable=0 if document.cancellation else total - reduced)


def _with_quantity(item: OrderItem, event: OrderLineQuantityChanged) -> OrderItem:
    if item.line_id != event.line_id:
        return item
    return replace(item, quantity=event.quantity, line_total=event.quantity * item.unit_price)


def _address_changed(_document: OrderDocument, event: ShippingAddressChanged, _at: datetime) -> Changes:
    return {"shipping_address_id": event.shipping_address_id, "shipping_address": event.shipping_address}


def _held(_document: OrderDocument, event: OrderHeld, _at: datetime) -> Changes:
    return {"on_hold": True, "hold_reason": event.reason}


def _released(_document: OrderDocument, _event: OrderHoldReleased, _at: datetime) -> Changes:
    return {"on_hold": False, "hold_reason": None}


def _nothing_shown(
    _document: OrderDocument, _event: OrderItemsReserved | OrderReservationExpired, _at: datetime
) -> Changes:
    """The stock of the products shows it."""
    return {}


# --- money ---------------------------------------------------------------------------------------------------------


def _confirmed(_document: OrderDocument, _event: OrderConfirmed, at: datetime) -> Changes:
    return {"status": OrderStatus.CONFIRMED, "confirmed_at": at}


def _paid_at_once(document: OrderDocument, event: PaymentConfirmed, at: datetime) -> Changes:
    return {"status": OrderStatus.CONFIRMED, "confirmed_at": at, **_recorded(document, event, at)}


def _recorded(
    document: OrderDocument, event: PaymentConfirmed | PaymentReceived | PaymentAuthorised, at: datetime
) -> Changes:
    return _with_payments(document, (*document.payments, OrderPayment.of(event, at)))


def _captured(document: OrderDocument, event: PaymentCaptured, at: datetime) -> Changes:
    return _with_payments(document, _added_to(document.payments, event, "amount_captured", captured_at=at))


def _voided(document: OrderDocument, event: PaymentVoided, at: datetime) -> Changes:
    return _with_payments(document, _added_to(document.payments, event, "amount_voided", voided_at=at))


def _refunded(document: OrderDocument, event: PaymentRefunded, at: datetime) -> Changes:
    refund = OrderRefund(event.refund_id, event.payment_reference, event.amount, event.reason, at)
    payments = _added_to(document.payments, event, "amount_refunded")
    changes = _with_payments(document, payments, document.amount_payable - event.price_reduction)
    return {"refunds": (*document.refunds, refund), **changes}


def _cancelled(document: OrderDocument, event: OrderCancelled, at: datetime) -> Changes:
    changes = {"status": OrderStatus.CANCELLED, "cancellation": Cancellation(event.reason, at)}
    return {**changes, "on_hold": False, "hold_reason": None, **_money(document, payable=0)}


def _with_payments(document: OrderDocument, payments: tuple[OrderPayment, ...], payable: int | None = None) -> Changes:
    payable = document.amount_payable if payable is None else payable
    return {"payments": payments, **_money(document, payable=payable, payments=payments)}


def _added_to(
    payments: Iterable[OrderPayment],
    event: PaymentCaptured | PaymentVoided | PaymentRefunded,
    name: str,
    **changes: datetime,
) -> tuple[OrderPayment, ...]:
    """The payments, with the event's amount added to that field of the one that it names."""
    return tuple(
        [
            replace(one, **{name: getattr(one, name) + event.amount}, **changes)
            if one.payment_reference == event.payment_reference
            else one
            for one in payments
        ]
    )


def _money(document: OrderDocument, *, payable: int, payments: tuple[OrderPayment, ...] | None = None) -> Changes:
    """The sums, and the payment status that follows from them."""
    payments = document.payments if payments is None else payments
    authorised = sum([payment.open for payment in payments])
    captured = sum([payment.amount_captured for payment in payments])
    refunded = sum([payment.amount_refunded for payment in payments])
    missing = payable - captured + refunded
    if missing < 0:
        status = PaymentStatus.REFUND_DUE
    elif refunded:
        status = PaymentStatus.REFUNDED if refunded == captured else PaymentStatus.PARTLY_REFUNDED
    elif captured:
        status = PaymentStatus.PARTLY_PAID if missing else PaymentStatus.PAID
    elif authorised:
        status = PaymentStatus.AUTHORISED
    else:  # a payment of 0 pays for what is free
        free = not missing and any(payment.amount == 0 for payment in payments)
        status = PaymentStatus.PAID if free else PaymentStatus.UNPAID
    return {
        "payment_status": status,
        "amount_payable": payable,
        "amount_authorised": authorised,
        "amount_paid": captured,
        "amount_refunded": refunded,
        "amount_due": max(0, missing),
        "refund_due": max(0, -missing),
    }


# --- parcels -------------------------------------------------------------------------------------------------------


def _all_shipped(document: OrderDocument, event: OrderShipped, at: datetime) -> Changes:
    taken = {shipment.shipment_id for shipment in document.shipments}
    shipment_id = event.shipment_id or next_id(len(taken) + 1, taken)
    shipped = quantities([line for shipment in document.shipments for line in shipment.lines])
    lines = [
        LineQuantity(item.line_id, left)
        for item in document.items
        if (left := item.quantity - shipped.get(item.line_id, 0))
    ]
    shipment = OrderShipment(shipment_id, event.tracking_number, event.carrier, tuple(lines), at, None)
    return {"status": OrderStatus.SHIPPED, "shipped_at": at, **_shipped(document, OrderStatus.SHIPPED, shipment)}


def _part_shipped(document: OrderDocument, event: ItemsShipped, at: datetime) -> Changes:
    shipment = OrderShipment(event.shipment_id, event.tracking_number, event.carrier, event.lines, at, None)
    return _shipped(document, document.status, shipment)


def _shipped(document: OrderDocument, status: OrderStatus, shipment: OrderShipment) -> Changes:
    return {
        "fulfilment_status": _fulfilment(document, status, document.returns),
        "shipments": (*document.shipments, shipment),
        "tracking_number": shipment.tracking_number,
    }


def _shipment_delivered(document: OrderDocument, event: ShipmentDelivered, at: datetime) -> Changes:
    return {"shipments": _updated(document.shipments, "shipment_id", event.shipment_id, delivered_at=at)}


def _delivered(document: OrderDocument, _event: OrderDelivered, at: datetime) -> Changes:
    shipments = [one if one.delivered_at else replace(one, delivered_at=at) for one in document.shipments]
    return {
        "status": OrderStatus.DELIVERED,
        "fulfilment_status": _fulfilment(document, OrderStatus.DELIVERED, document.returns),
        "shipments": tuple(shipments),
        "delivered_at": at,
    }


def _return_requested(document: OrderDocument, event: ReturnRequested, at: datetime) -> Changes:
    lines = tuple([ReturnedLine(line.line_id, line.quantity, 0, 0) for line in event.lines])
    return {"returns": (*document.returns, OrderReturn(event.return_id, event.reason, lines, at, None))}


def _return_received(document: OrderDocument, event: ReturnReceived, at: datetime) -> Changes:
    [requested] = [one for one in document.returns if one.return_id == event.return_id]
    lines = tuple([_with_received(line, event.lines) for line in requested.lines])
    returns = _updated(document.returns, "return_id", event.return_id, lines=lines, received_at=at)
    status = _fulfilment(document, document.status, returns)
    money = _money(document, payable=document.amount_payable - event.price_reduction)
    return {"returns": returns, "fulfilment_status": status, **money}


def _with_received(line: ReturnedLine, received: Iterable[ReceivedLine]) -> ReturnedLine:
    pieces = [one for one in received if one.line_id == line.line_id]
    restocked = line.restocked + sum([one.quantity for one in pieces if one.restock])
    written_off = line.written_off + sum([one.quantity for one in pieces if not one.restock])
    return replace(line, restocked=restocked, written_off=written_off)


def _fulfilment(document: OrderDocument, status: OrderStatus, returns: Iterable[OrderReturn]) -> FulfilmentStatus:
    """Of an order of which something was shipped."""
    back = sum([line.restocked + line.written_off for one in returns for line in one.lines])
    if back:
        everything = sum([item.quantity for item in document.items])
        return FulfilmentStatus.RETURNED if back == everything else FulfilmentStatus.PARTLY_RETURNED
    if status is OrderStatus.DELIVERED:
        return FulfilmentStatus.DELIVERED
    return FulfilmentStatus.SHIPPED if status is OrderStatus.SHIPPED else FulfilmentStatus.PARTLY_SHIPPED


T = TypeVar("T", bound=msgspec.Struct)


def _updated(entries: Iterable[T], id_field: str, entry_id: str, **changes: Any) -> tuple[T, ...]:
    """The entries, with changes of the one that has the id."""
    return tuple([replace(one, **changes) if getattr(one, id_field) == entry_id else one for one in entries])


# Looked up by type: to ask whether a msgspec Struct is of a type (isinstance, match) takes longer each time than most
# of these functions.
_CHANGES: dict[type[Any], Callable[[OrderDocument, Any, datetime], Changes]] = {
    OrderItemAdded: _item_added,
    OrderItemRemoved: _item_removed,
    OrderLineQuantityChanged: _quantity_changed,
    ShippingAddressChanged: _address_changed,
    OrderHeld: _held,
    OrderHoldReleased: _released,
    OrderItemsReserved: _nothing_shown,
    OrderReservationExpired: _nothing_shown,
    OrderCancelled: _cancelled,
    PaymentConfirmed: _paid_at_once,
    PaymentAuthorised: _recorded,
    PaymentReceived: _recorded,
    PaymentCaptured: _captured,
    PaymentVoided: _voided,
    PaymentRefunded: _refunded,
    OrderConfirmed: _confirmed,
    OrderShipped: _all_shipped,
    ItemsShipped: _part_shipped,
    ShipmentDelivered: _shipment_delivered,
    OrderDelivered: _delivered,
    ReturnRequested: _return_requested,
    ReturnReceived: _return_received,
}
assert _CHANGES.keys() == {*get_args(OrderEvent)} - {OrderPlaced}, "each event changes the document somehow"
