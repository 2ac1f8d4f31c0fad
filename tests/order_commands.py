"""Random commands on one order, of few values, so that they meet."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import strategies as st

from command_service.domain.order import (
    AddOrderItem,
    CancelOrder,
    CapturePayment,
    ChangeLineQuantity,
    ChangeShippingAddress,
    ConfirmDelivery,
    ConfirmPayment,
    ConfirmShipmentDelivery,
    HoldOrder,
    OrderCommand,
    PlaceOrder,
    ReceiveReturn,
    RecordPayment,
    RefundPayment,
    ReleaseHold,
    RemoveOrderItem,
    RequestReturn,
    ShipItems,
    ShipOrder,
    VoidPayment,
    decide,
)
from shared.aggregates.address import Address
from shared.aggregates.order import Charge, ChargeKind, LineQuantity, OrderLine, ReceivedLine, State
from shared.errors import OrdersError

ORDER_ID = "42"
THE_REST = -1  # an amount that `fitted` replaces by what is due

_ID = st.just(ORDER_ID)
_NAMES = st.sampled_from(["a", "b"])
_PRODUCTS = st.sampled_from(["MUG", "LAMP", "PEN"])
_LINE_IDS = st.sampled_from(["1", "2", "3", "x"])
_METADATA = st.none() | st.just({"gift": "yes"})
_ADDRESSES = st.none() | st.just(Address("Ada", ("12 St James's Square",), "London", "GB"))
_AMOUNTS = st.just(THE_REST) | st.integers(1, 900)
_PIECES = st.lists(st.builds(LineQuantity, _LINE_IDS, st.integers(1, 2)), min_size=1, max_size=2).map(tuple)
_RECEIVED = st.lists(st.builds(ReceivedLine, _LINE_IDS, st.integers(1, 2), st.booleans()), min_size=1, max_size=2).map(
    tuple
)

lines = st.builds(
    OrderLine,
    _PRODUCTS,
    st.integers(1, 3),
    st.integers(0, 500),
    st.none() | _NAMES,
    st.none() | st.none() | _LINE_IDS,
    st.none() | _NAMES,
    _METADATA,
)


def _charge(kind: ChargeKind, amount: int, label: str | None, line_id: str | None) -> Charge:
    return Charge("", kind, -amount if kind is ChargeKind.DISCOUNT else amount, label, line_id)


charges = st.builds(
    _charge, st.sampled_from(ChargeKind), st.integers(0, 300), st.none() | _NAMES, st.none() | _LINE_IDS
)
any_placings = st.builds(
    PlaceOrder,
    _ID,
    _NAMES,
    st.just("GBP"),
    st.lists(lines, min_size=1, max_size=3).map(tuple),
    _NAMES,
    st.lists(charges, max_size=3).map(tuple) | st.just(()),
    _ADDRESSES,
    st.none() | _NAMES,
    st.none() | _NAMES,
    _METADATA,
)


def _is_accepted(placing: PlaceOrder) -> bool:
    try:
        return bool(decide(placing, None))
    except OrdersError:
        return False


placings = any_placings.filter(_is_accepted)
commands: st.SearchStrategy[OrderCommand] = st.one_of(
    st.builds(AddOrderItem, _ID, lines),
    st.builds(RemoveOrderItem, _ID, _PRODUCTS),
    st.builds(ChangeLineQuantity, _ID, _LINE_IDS, st.integers(0, 4)),
    st.builds(ChangeShippingAddress, _ID, _NAMES, st.none() | _NAMES, _ADDRESSES),
    st.builds(ConfirmPayment, _ID, _NAMES, _AMOUNTS),
    st.builds(RecordPayment, _ID, _NAMES, _AMOUNTS, st.booleans(), st.none() | _NAMES),
    st.builds(RecordPayment, _ID, st.sampled_from(["c", "d"]), _AMOUNTS, st.booleans()),
    st.builds(RecordPayment, _ID, st.sampled_from(["c", "d"]), _AMOUNTS, st.just(True), st.none(), _NAMES),
    st.builds(CapturePayment, _ID, _NAMES, st.none() | st.integers(1, 300)),
    st.builds(VoidPayment, _ID, _NAMES, st.none() | _NAMES),
    st.builds(RefundPayment, _ID, st.sampled_from(["r", "s", "t"]), _NAMES, st.integers(1, 300), _NAMES),
    st.builds(ShipOrder, _ID, _NAMES, st.none() | _NAMES),
    st.builds(ShipItems, _ID, st.sampled_from(["1", "p", "q"]), _NAMES, st.none() | _NAMES, _PIECES),
    st.builds(ConfirmShipmentDelivery, _ID, st.sampled_from(["1", "2", "p", "q"])),
    st.builds(ConfirmDelivery, _ID),
    st.builds(RequestReturn, _ID, _NAMES, _PIECES, _NAMES),
    st.builds(ReceiveReturn, _ID, _NAMES, _RECEIVED),
    st.builds(HoldOrder, _ID, _NAMES),
    st.builds(ReleaseHold, _ID),
    st.builds(CancelOrder, _ID, _NAMES),
)

# One after the other, they lead through the whole life of an order, and what they repeat with other values is refused.
_ONE, _TOO_MANY = (LineQuantity("1", 1),), (LineQuantity("1", 9),)
STEPS: tuple[OrderCommand, ...] = (
    RecordPayment(ORDER_ID, "a", THE_REST, captured=False),
    CapturePayment(ORDER_ID, "a", 1),
    HoldOrder(ORDER_ID, "a"),
    ShipOrder(ORDER_ID, "a"),
    ReleaseHold(ORDER_ID),
    ShipItems(ORDER_ID, "more", "a", None, _TOO_MANY),
    ShipItems(ORDER_ID, "p", "a", None, _ONE),
    ShipItems(ORDER_ID, "p", "b", None, _ONE),
    ConfirmShipmentDelivery(ORDER_ID, "p"),
    CancelOrder(ORDER_ID, "a"),
    VoidPayment(ORDER_ID, "a"),
    ShipOrder(ORDER_ID, "a"),
    RecordPayment(ORDER_ID, "b", THE_REST),
    ShipOrder(ORDER_ID, "a"),
    RequestReturn(ORDER_ID, "a", _ONE, "a"),
    RequestReturn(ORDER_ID, "a", _ONE, "b"),
    ReceiveReturn(ORDER_ID, "a", (ReceivedLine("1", 9, restock=True),)),
    ReceiveReturn(ORDER_ID, "a", (ReceivedLine("1", 1, restock=True),)),
    RefundPayment(ORDER_ID, "r", "b", 1, "a"),
    RefundPayment(ORDER_ID, "r", "b", 1, "b"),
    ConfirmDelivery(ORDER_ID),
)


def fitted(command: OrderCommand, state: State) -> OrderCommand:
    """The command, with an amount that settles what is due where it asks for that."""
    if isinstance(command, ConfirmPayment | RecordPayment) and command.amount == THE_REST:
        due = 1 if state is None else state.amount_due
        return replace(command, amount=due if isinstance(command, ConfirmPayment) else max(1, due))
    return command
