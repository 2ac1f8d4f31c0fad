"""The order: its commands, its refusals, and every rule that decides. Pure; state and `evolve` are in
`shared/aggregates/order/`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import get_args

from command_service.domain.decider import Decider, EventsByStream, States
from command_service.domain.order import lines, payments, returns, shipments
from command_service.domain.order.commands import (
    AddOrderItem,
    CancelOrder,
    CapturePayment,
    ChangeLineQuantity,
    ChangeShippingAddress,
    ConfirmDelivery,
    ConfirmPayment,
    ConfirmShipmentDelivery,
    HoldOrder,
    ItemCommand,
    OrderCommand,
    PaymentCommand,
    PlaceOrder,
    ReceiveReturn,
    RecordPayment,
    RefundPayment,
    ReleaseHold,
    RemoveOrderItem,
    RequestReturn,
    ShipItems,
    ShipmentCommand,
    ShipOrder,
    VoidPayment,
)
from command_service.domain.order.lines import (
    MAX_BYTES,
    MAX_CHARGES,
    MAX_LINES,
    MAX_TOTAL,
    MAX_UNIT_PRICE,
)
from command_service.domain.order.money_refusals import (
    CaptureExceedsAuthorisation,
    NothingToVoid,
    OrderNotPaid,
    PaymentAlreadyRecorded,
    PaymentNotFound,
    PaymentReferenceInUse,
    RefundAlreadyRecorded,
    RefundExceedsPayment,
)
from command_service.domain.order.parcel_refusals import (
    OrderNotHoldable,
    OrderOnHold,
    OrderPartlyShipped,
    ReceiptExceedsReturn,
    ReturnAlreadyRequested,
    ReturnExceedsShipment,
    ReturnNotFound,
    ShipmentAlreadyRecorded,
    ShipmentExceedsOrder,
    ShipmentNotFound,
)
from command_service.domain.order.payments import MAX_PAYMENTS, MAX_REFUNDS
from command_service.domain.order.pieces import MAX_PARCEL_LINES
from command_service.domain.order.refusals import (
    ChargeOfUnknownLine,
    DuplicateChargeId,
    DuplicateLineId,
    ItemNotFound,
    LineNotFound,
    NegativeAmount,
    OrderAlreadyPlaced,
    OrderNeedsALine,
    OrderNotCancellable,
    OrderNotConfirmed,
    OrderNotFound,
    OrderNotPending,
    OrderNotShipped,
    OrderTooLarge,
    OrderTotalTooLarge,
    PaymentAmountMismatch,
    TooManyEntries,
    TooManyLines,
)
from command_service.domain.order.returns import MAX_RETURNS
from command_service.domain.order.shipments import MAX_SHIPMENTS
from shared.aggregates.order import ORDER, Order, OrderEvent, State
from shared.aggregates.payment import Payment, PaymentReferenceAssigned, payment_stream

__all__ = [
    "MAX_BYTES",
    "MAX_CHARGES",
    "MAX_LINES",
    "MAX_PARCEL_LINES",
    "MAX_PAYMENTS",
    "MAX_REFUNDS",
    "MAX_RETURNS",
    "MAX_SHIPMENTS",
    "MAX_TOTAL",
    "MAX_UNIT_PRICE",
    "ORDERS",
    "AddOrderItem",
    "CancelOrder",
    "CaptureExceedsAuthorisation",
    "CapturePayment",
    "ChangeLineQuantity",
    "ChangeShippingAddress",
    "ChargeOfUnknownLine",
    "ConfirmDelivery",
    "ConfirmPayment",
    "ConfirmShipmentDelivery",
    "DuplicateChargeId",
    "DuplicateLineId",
    "HoldOrder",
    "ItemNotFound",
    "LineNotFound",
    "NegativeAmount",
    "NothingToVoid",
    "OrderAlreadyPlaced",
    "OrderCommand",
    "OrderNeedsALine",
    "OrderNotCancellable",
    "OrderNotConfirmed",
    "OrderNotFound",
    "OrderNotHoldable",
    "OrderNotPaid",
    "OrderNotPending",
    "OrderNotShipped",
    "OrderOnHold",
    "OrderPartlyShipped",
    "OrderTooLarge",
    "OrderTotalTooLarge",
    "PaymentAlreadyRecorded",
    "PaymentAmountMismatch",
    "PaymentNotFound",
    "PaymentReferenceInUse",
    "PlaceOrder",
    "ReceiptExceedsReturn",
    "ReceiveReturn",
    "RecordPayment",
    "RefundAlreadyRecorded",
    "RefundExceedsPayment",
    "RefundPayment",
    "ReleaseHold",
    "RemoveOrderItem",
    "RequestReturn",
    "ReturnAlreadyRequested",
    "ReturnExceedsShipment",
    "ReturnNotFound",
    "ShipItems",
    "ShipOrder",
    "ShipmentAlreadyRecorded",
    "ShipmentExceedsOrder",
    "ShipmentNotFound",
    "TooManyEntries",
    "TooManyLines",
    "VoidPayment",
    "decide",
]


def decide(command: OrderCommand, state: State) -> list[OrderEvent]:
    """The events that the command leads to. Raises one of the refusals."""
    if isinstance(command, PlaceOrder):
        return lines.place(command, state)
    if state is None:
        raise OrderNotFound(command.order_id)
    if isinstance(command, ItemCommand):
        return lines.decide(command, state)
    if isinstance(command, PaymentCommand):
        return payments.decide(command, state)
    if isinstance(command, ShipmentCommand):
        return shipments.decide(command, state)
    return returns.decide(command, state)


def _streams(command: OrderCommand) -> Sequence[str]:
    """A payment is decided on the stream of its reference as well, which belongs to one order."""
    if isinstance(command, ConfirmPayment | RecordPayment):
        return (payment_stream(command.payment_reference),)
    return ()


def decide_over(command: OrderCommand, states: States, _at: datetime) -> EventsByStream:
    """The events of a payment, and that its reference belongs to the order. Raises `PaymentReferenceInUse`."""
    assert isinstance(command, ConfirmPayment | RecordPayment)
    own, reference = ORDER.stream_of(command.order_id), payment_stream(command.payment_reference)
    events = decide(command, states[own])
    known: Payment | None = states[reference]
    if not events:
        return {}
    if known is None:
        return {own: events, reference: [PaymentReferenceAssigned(command.payment_reference, command.order_id)]}
    if known.order_id != command.order_id:
        raise PaymentReferenceInUse(command.payment_reference)
    return {own: events}


def _order_id(command: OrderCommand) -> str:
    return command.order_id


ORDERS: Decider[OrderCommand, Order, OrderEvent] = Decider(
    aggregate=ORDER,
    commands=get_args(OrderCommand),
    aggregate_id=_order_id,
    decide=decide,
    begins=frozenset({PlaceOrder}),
    streams=_streams,
    decide_over=decide_over,
)
