"""Decides what leaves: shipments, deliveries, holds and the cancellation. Pure."""

from __future__ import annotations

from typing import assert_never

from command_service.domain.order.commands import (
    CancelOrder,
    ConfirmDelivery,
    ConfirmShipmentDelivery,
    HoldOrder,
    ReleaseHold,
    ShipItems,
    ShipmentCommand,
    ShipOrder,
)
from command_service.domain.order.parcel_refusals import (
    OrderNotHoldable,
    OrderOnHold,
    OrderPartlyShipped,
    ShipmentAlreadyRecorded,
    ShipmentExceedsOrder,
    ShipmentNotFound,
)
from command_service.domain.order.payments import require_paid
from command_service.domain.order.pieces import require_available, require_few_lines, require_lines
from command_service.domain.order.refusals import (
    OrderNotCancellable,
    OrderNotConfirmed,
    OrderNotShipped,
    TooManyEntries,
)
from shared.aggregates.order import (
    ItemsShipped,
    LineQuantity,
    Order,
    OrderCancelled,
    OrderDelivered,
    OrderEvent,
    OrderHeld,
    OrderHoldReleased,
    OrderShipped,
    OrderStatus,
    ShipmentDelivered,
)
from shared.aggregates.order.lines import quantities

MAX_SHIPMENTS = 100

_NOT_ALL_SHIPPED = (OrderStatus.PENDING, OrderStatus.CONFIRMED)


def decide(command: ShipmentCommand, state: Order) -> list[OrderEvent]:
    match command:
        case ShipOrder():
            return _ship_order(command, state)
        case ShipItems():
            return _ship_items(command, state)
        case ConfirmShipmentDelivery():
            return _confirm_shipment_delivery(command, state)
        case ConfirmDelivery():
            return _confirm_delivery(command, state)
        case HoldOrder():
            return _hold(command, state)
        case ReleaseHold():
            return _release_hold(command, state)
        case CancelOrder():
            return _cancel(command, state)
        case _:
            assert_never(command)


def _ship_order(command: ShipOrder, state: Order) -> list[OrderEvent]:
    if state.status in (OrderStatus.SHIPPED, OrderStatus.DELIVERED):
        last = state.shipments[-1]
        if (last.tracking_number, last.carrier) == (command.tracking_number, command.carrier):
            return []
    left = state.left_to_ship() if state.shipments else {}
    _require_shippable(command.order_id, state, len(left) or len(state.items))
    return [OrderShipped(command.tracking_number, command.carrier)]


def _ship_items(command: ShipItems, state: Order) -> list[OrderEvent]:
    for known in state.shipments:
        if known.shipment_id == command.shipment_id:
            given = command.tracking_number, command.carrier, quantities(command.lines)
            if given != (known.tracking_number, known.carrier, quantities(known.lines)):
                raise ShipmentAlreadyRecorded(command.order_id, command.shipment_id)
            return []
    _require_shippable(command.order_id, state, len(command.lines))
    left, shipped = state.left_to_ship(), quantities(command.lines)
    require_lines(command.order_id, state, shipped)
    require_available(command.order_id, ShipmentExceedsOrder, left, shipped)
    if shipped == left:
        return [OrderShipped(command.tracking_number, command.carrier, command.shipment_id)]
    lines = tuple([LineQuantity(line_id, count) for line_id, count in shipped.items()])
    return [ItemsShipped(command.shipment_id, command.tracking_number, lines, command.carrier)]


def _confirm_shipment_delivery(command: ConfirmShipmentDelivery, state: Order) -> list[OrderEvent]:
    shipment = next((one for one in state.shipments if one.shipment_id == command.shipment_id), None)
    if shipment is None:
        raise ShipmentNotFound(command.order_id, command.shipment_id)
    if shipment.delivered:
        return []
    on_the_way = [one for one in state.shipments if not one.delivered]
    if on_the_way == [shipment] and state.status is OrderStatus.SHIPPED:
        return [OrderDelivered()]
    return [ShipmentDelivered(command.shipment_id)]


def _confirm_delivery(command: ConfirmDelivery, state: Order) -> list[OrderEvent]:
    if state.status is OrderStatus.DELIVERED:
        return []
    if state.status is not OrderStatus.SHIPPED:
        raise OrderNotShipped(command.order_id, state.status)
    return [OrderDelivered()]


def _require_shippable(order_id: str, state: Order, lines: int) -> None:
    if state.status is not OrderStatus.CONFIRMED:
        raise OrderNotConfirmed(order_id, state.status)
    if state.hold is not None:
        raise OrderOnHold(order_id, state.hold.reason)
    require_paid(order_id, state)
    if len(state.shipments) >= MAX_SHIPMENTS:
        raise TooManyEntries(order_id, "shipments", MAX_SHIPMENTS)
    require_few_lines(order_id, "lines in shipments", lines + sum([len(one.lines) for one in state.shipments]))


def _hold(command: HoldOrder, state: Order) -> list[OrderEvent]:
    if state.status not in _NOT_ALL_SHIPPED:
        raise OrderNotHoldable(command.order_id, state.status)
    held = OrderHeld(command.reason)
    return [] if state.hold == held else [held]


def _release_hold(_command: ReleaseHold, state: Order) -> list[OrderEvent]:
    return [OrderHoldReleased()] if state.hold is not None else []


def _cancel(command: CancelOrder, state: Order) -> list[OrderEvent]:
    if state.cancellation is not None and state.cancellation.reason == command.reason:
        return []
    if state.status not in _NOT_ALL_SHIPPED:
        raise OrderNotCancellable(command.order_id, state.status)
    if state.shipments:
        raise OrderPartlyShipped(command.order_id, len(state.shipments))
    return [OrderCancelled(command.reason, refund_amount=state.paid)]
