"""The order: its commands, its refusals, and every rule that decides. Pure; state and `evolve` are in
`shared/aggregates/order/`."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import get_args

from command_service.domain.customer import check_can_order
from command_service.domain.decider import Decider, EventsByStream, States
from command_service.domain.order import account_money, lines, payments, reservations, returns, shipments
from command_service.domain.order.commands import (
    AddOrderItem,
    CancelOrder,
    CapturePayment,
    ChangeLineQuantity,
    ChangeShippingAddress,
    ConfirmDelivery,
    ConfirmPayment,
    ConfirmShipmentDelivery,
    ExpireReservation,
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
from shared.aggregates.account import ACCOUNT
from shared.aggregates.customer import CUSTOMER
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
    "ExpireReservation",
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
    """A payment is decided on the stream of its reference as well, which belongs to one order, and on that of the
    account that pays; an order whose customer must be known, on the customer."""
    if isinstance(command, RecordPayment) and command.account_id is not None:
        return (payment_stream(command.payment_reference), ACCOUNT.stream_of(command.account_id))
    if isinstance(command, ConfirmPayment | RecordPayment):
        return (payment_stream(command.payment_reference),)
    if isinstance(command, PlaceOrder) and command.customer_must_be_known:
        return (CUSTOMER.stream_of(command.customer_id),)
    return ()


def _usually_absent(command: OrderCommand) -> Sequence[str]:
    """The stock of the products that are ordered: most are not tracked."""
    if isinstance(command, PlaceOrder):
        return reservations.stock_streams(command.items)
    if isinstance(command, AddOrderItem):
        return reservations.stock_streams((command.item,))
    return ()


def decide_over(command: OrderCommand, states: States, at: datetime) -> EventsByStream:
    """The events of the order, and what they change in the same append: the stock of its tracked products, a payment's
    reference, and the account that pays or gets a refund. Raises one of the refusals, `MoreStreams`, and for a customer
    who must be known as `check_can_order`."""
    order: State = states[ORDER.stream_of(command.order_id)]
    events = decide(command, order)
    if isinstance(command, PlaceOrder) and command.customer_must_be_known:
        check_can_order(command.customer_id, states[CUSTOMER.stream_of(command.customer_id)])
    decided = reservations.with_stock(command.order_id, order, events, states)
    if not decided or order is None:
        return decided
    if isinstance(command, RefundPayment):
        return {**decided, **account_money.refund(command, order, states, at)}
    if isinstance(command, ConfirmPayment | RecordPayment):
        decided = {**decided, **_assigned(command, states)}
    if isinstance(command, RecordPayment):
        return {**decided, **account_money.pay(command, order, states, at)}
    return decided


def _assigned(command: ConfirmPayment | RecordPayment, states: States) -> EventsByStream:
    """That the reference belongs to the order, unless it is known. Raises `PaymentReferenceInUse`."""
    reference = payment_stream(command.payment_reference)
    known: Payment | None = states[reference]
    if known is None:
        return {reference: [PaymentReferenceAssigned(command.payment_reference, command.order_id)]}
    if known.order_id != command.order_id:
        raise PaymentReferenceInUse(command.payment_reference)
    return {}


def _order_id(command: OrderCommand) -> str:
    return command.order_id


ORDERS: Decider[OrderCommand, Order, OrderEvent] = Decider(
    aggregate=ORDER,
    commands=get_args(OrderCommand),
    aggregate_id=_order_id,
    decide=None,
    begins=frozenset({PlaceOrder}),
    streams=_streams,
    usually_absent=_usually_absent,
    decide_over=decide_over,
)
