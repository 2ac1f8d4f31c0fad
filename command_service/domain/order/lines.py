"""Decides what is on an order: its lines, charges and address. Pure."""

from __future__ import annotations

from collections.abc import Container, Mapping, Sequence
from typing import assert_never

import msgspec
from msgspec.structs import replace

from command_service.domain.customer import CustomerIsErased
from command_service.domain.order.commands import (
    AddOrderItem,
    ChangeLineQuantity,
    ChangeShippingAddress,
    ExpireReservation,
    ItemCommand,
    PlaceOrder,
    RemoveOrderItem,
)
from command_service.domain.order.refusals import (
    ChargeOfUnknownLine,
    DuplicateChargeId,
    DuplicateLineId,
    ItemNotFound,
    LineNotFound,
    NegativeAmount,
    OrderAlreadyPlaced,
    OrderNeedsALine,
    OrderNotPending,
    OrderTooLarge,
    OrderTotalTooLarge,
    TooManyEntries,
    TooManyLines,
)
from command_service.domain.product import check_products
from shared.aggregates.address import Address
from shared.aggregates.order import (
    Charge,
    Order,
    OrderConfirmed,
    OrderEvent,
    OrderItemAdded,
    OrderItemRemoved,
    OrderLine,
    OrderLineQuantityChanged,
    OrderPlaced,
    OrderReservationExpired,
    OrderStatus,
    ShippingAddressChanged,
    State,
    total_of,
)
from shared.aggregates.order.lines import lines_by_id, next_id
from shared.currencies import exponent_of
from shared.exact_integers import MAX_EXACT_INTEGER
from shared.privacy.sealed import is_of_erased

MAX_LINES = 2_000
MAX_CHARGES = 2_000
MAX_UNIT_PRICE = 10**12  # a laptop costs IDR 15,000,000.00
MAX_TOTAL = MAX_EXACT_INTEGER
MAX_BYTES = 640 * 1024  # of an order's lines and charges as JSON: every change writes its document anew
# Ids and a SKU of 64 characters, a name of 500 that take 4 bytes each, and the rest, without metadata.
_MAX_PLAIN_LINE_BYTES = 2_800


def place(command: PlaceOrder, state: State) -> list[OrderEvent]:
    if state is not None:
        raise OrderAlreadyPlaced(command.order_id)
    _check_customer(command.customer_id, command.shipping_address, command.note)
    charges = _with_ids(command.order_id, command.charges)
    _check(command.order_id, command.currency, command.items, charges)
    check_products(command.catalogue, command.currency, command.items, charges)
    return [
        OrderPlaced(
            command.customer_id,
            command.currency,
            command.items,
            command.shipping_address_id,
            charges,
            command.shipping_address,
            command.external_reference,
            command.note,
            command.metadata,
        )
    ]


def decide(command: ItemCommand, state: Order) -> list[OrderEvent]:
    match command:
        case AddOrderItem():
            return _add_item(command, state)
        case RemoveOrderItem():
            return _remove_item(command, state)
        case ChangeLineQuantity():
            return _change_quantity(command, state)
        case ChangeShippingAddress():
            return _change_address(command, state)
        case ExpireReservation():
            is_open = state.status is OrderStatus.PENDING and state.reserved_products
            return [OrderReservationExpired()] if is_open else []
        case _:
            assert_never(command)


def _add_item(command: AddOrderItem, state: Order) -> list[OrderEvent]:
    require_pending(command.order_id, state)
    item = command.item
    if item.line_id is not None:
        if item.line_id in state.lines:
            raise DuplicateLineId(command.order_id, item.line_id)
    elif state.lines_removed:  # no id is given a second time
        taken = state.lines
        item = replace(item, line_id=next_id(len(taken) + state.lines_removed + 1, taken))
    _check(command.order_id, state.currency, (*state.items, item), state.charges)
    check_products(command.catalogue, state.currency, (item,), state.charges)
    return [OrderItemAdded(item)]


def _remove_item(command: RemoveOrderItem, state: Order) -> list[OrderEvent]:
    require_pending(command.order_id, state)
    products = {line.product_id for line in state.items}
    if command.product_id not in products:
        raise ItemNotFound(command.order_id, command.product_id)
    if products == {command.product_id}:
        raise OrderNeedsALine(command.order_id, command.product_id)
    left = {line_id: line for line_id, line in state.lines.items() if line.product_id != command.product_id}
    return [OrderItemRemoved(command.product_id), *_confirmed(command.order_id, state, left)]


def _change_quantity(command: ChangeLineQuantity, state: Order) -> list[OrderEvent]:
    require_pending(command.order_id, state)
    left = state.lines
    if (line := left.get(command.line_id)) is None:
        raise LineNotFound(command.order_id, command.line_id)
    if command.quantity == line.quantity:
        return []
    if command.quantity:
        left[command.line_id] = replace(line, quantity=command.quantity)
    elif len(left) > 1:
        del left[command.line_id]
    else:
        raise OrderNeedsALine(command.order_id, line.product_id)
    total = total_of(left.values(), _charges_of(state, left))
    _check_total(command.order_id, state.currency, total)
    change = total - state.total
    return [
        OrderLineQuantityChanged(command.line_id, line.product_id, command.quantity, line.quantity, change),
        *_confirmed(command.order_id, state, left),
    ]


def _change_address(command: ChangeShippingAddress, state: Order) -> list[OrderEvent]:
    require_pending(command.order_id, state)
    new = command.shipping_address_id, command.shipping_address
    if new == (state.shipping_address_id, state.shipping_address):
        return []
    _check_customer(state.customer_id, command.shipping_address)
    return [ShippingAddressChanged(command.shipping_address_id, command.reason, command.shipping_address)]


def _check_customer(customer_id: str, address: Address | None, note: str | None = None) -> None:
    """What an order needs from an erased person cannot be kept. Raises `CustomerIsErased`."""
    if (note is not None and is_of_erased(note)) or (address is not None and is_of_erased(address.name)):
        raise CustomerIsErased(customer_id)


def require_pending(order_id: str, state: Order) -> None:
    if state.status is not OrderStatus.PENDING:
        raise OrderNotPending(order_id, state.status)


def _confirmed(order_id: str, state: Order, left: Mapping[str, OrderLine]) -> list[OrderEvent]:
    """`OrderConfirmed` where what was paid and authorised covers what these lines cost. Raises `NegativeAmount`."""
    charges = _charges_of(state, left)
    if charges:
        _check_amounts(order_id, state.currency, left, charges)
    covered = state.paid + state.authorised
    return [OrderConfirmed()] if covered > 0 and total_of(left.values(), charges) <= covered else []


def _charges_of(state: Order, lines: Container[str]) -> list[Charge]:
    """Those of the order and of these lines."""
    return [charge for charge in state.charges if charge.line_id is None or charge.line_id in lines]


def _with_ids(order_id: str, charges: tuple[Charge, ...]) -> tuple[Charge, ...]:
    """Each with an id. Raises `TooManyEntries` and `DuplicateChargeId`."""
    if not charges:
        return charges
    if len(charges) > MAX_CHARGES:
        raise TooManyEntries(order_id, "charges", MAX_CHARGES)
    taken: set[str] = set()
    for charge in charges:
        if charge.charge_id in taken:
            raise DuplicateChargeId(order_id, charge.charge_id)
        if charge.charge_id:
            taken.add(charge.charge_id)
    found = []
    for number, charge in enumerate(charges, 1):
        charge_id = charge.charge_id or next_id(number, taken)
        taken.add(charge_id)
        found.append(replace(charge, charge_id=charge_id))
    return tuple(found)


def _check(order_id: str, currency: str, items: Sequence[OrderLine], charges: Sequence[Charge]) -> None:
    if not items:
        raise OrderNeedsALine(order_id, None)
    if len(items) > MAX_LINES:
        raise TooManyLines(order_id, MAX_LINES)
    plain = not charges
    for line in items:
        if line.line_id is not None or line.metadata is not None:
            plain = False
            break
    if not plain or len(items) * _MAX_PLAIN_LINE_BYTES > MAX_BYTES:
        _check_ids(order_id, items)
        if len(msgspec.json.encode(items)) + len(msgspec.json.encode(charges)) - len("[]") > MAX_BYTES:
            raise OrderTooLarge(order_id, MAX_BYTES)
    _check_total(order_id, currency, total_of(items, charges))
    if charges:
        _check_amounts(order_id, currency, lines_by_id(items), charges)


def _check_ids(order_id: str, items: Sequence[OrderLine]) -> None:
    seen: set[str] = set()
    for line in items:
        if line.line_id is not None:
            if line.line_id in seen:
                raise DuplicateLineId(order_id, line.line_id)
            seen.add(line.line_id)


def _check_total(order_id: str, currency: str, total: int) -> None:
    if total > MAX_TOTAL:
        raise OrderTotalTooLarge(order_id, total, MAX_TOTAL, currency, exponent_of(currency))


def _check_amounts(order_id: str, currency: str, lines: Mapping[str, OrderLine], charges: Sequence[Charge]) -> None:
    """Raises `ChargeOfUnknownLine` and `NegativeAmount`."""
    amounts = {line_id: line.total for line_id, line in lines.items()}
    for charge in charges:
        if charge.line_id is not None:
            if charge.line_id not in amounts:
                raise ChargeOfUnknownLine(order_id, charge.line_id)
            amounts[charge.line_id] += charge.amount
    for line_id, amount in amounts.items():
        if amount < 0:
            raise NegativeAmount(order_id, line_id, amount, currency, exponent_of(currency))
    if (total := total_of(lines.values(), charges)) < 0:
        raise NegativeAmount(order_id, None, total, currency, exponent_of(currency))
