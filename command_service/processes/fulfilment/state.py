"""What a fulfilment knows: its view of the order, and what its gateways did for it. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, assert_never

import msgspec
from msgspec.structs import replace

from command_service.domain.order import (
    ReceiveReturn,
    RecordPayment,
    RequestReturn,
    ShipItems,
)
from command_service.domain.stock import InsufficientStock
from command_service.gateways.carrier import (
    BookParcel,
    CancelParcel,
    Delivered,
    HandedOver,
    HandOver,
    Lost,
    OnTheWay,
    OutOfStock,
    ParcelBooked,
    ParcelCancelled,
    TrackParcel,
)
from command_service.gateways.payment import (
    Authorise,
    Authorised,
    Capture,
    Captured,
    Declined,
    Refund,
    Refunded,
    Void,
    Voided,
)
from command_service.processes.definition import (
    Answered,
    Compensate,
    Dispatched,
    Input,
    Received,
    Refused,
    Requested,
    Retried,
)
from shared.aggregates.order import LineQuantity, Order, OrderStatus
from shared.aggregates.process import ProcessStuck, TimerFired

MAX_RESTOCK_WAITS = 5  # before an order of which nothing has left is cancelled
MAX_TRACKINGS = 60  # of a parcel, before it counts as lost
MAX_REPLACEMENTS = 1  # of a parcel that was lost, before its pieces are refunded


class Timer(StrEnum):
    PAYMENT = "payment"  # the payment gateway has not answered
    REVIEW = "review"  # staff have not decided on a suspected fraud yet
    PARCEL = "parcel"  # the carrier has not answered
    RESTOCK = "restock"  # time to ask for pieces again
    TRACK = "track"  # time to ask where the parcels are


# --- what it sees of the order -------------------------------------------------------------------------------------


class Books(msgspec.Struct, frozen=True, array_like=True):
    """What the order records of one payment: what can be captured, and what was captured and not refunded."""

    open: int = 0
    kept: int = 0


class OrderView(msgspec.Struct, frozen=True):
    """`to_ship` is empty until the order is paid in full and may be shipped."""

    order_id: str
    status: OrderStatus
    currency: str
    due: int  # neither paid nor authorised
    unpaid: int
    refund_due: int
    on_hold: bool
    books: dict[str, Books]  # by payment reference
    shipment_ids: tuple[str, ...]
    return_ids: tuple[str, ...]
    to_ship: tuple[LineQuantity, ...] = ()


def view(order_id: str, order: Order) -> OrderView:
    ready = order.status is OrderStatus.CONFIRMED and not order.amount_due
    left = order.left_to_ship().items() if ready else ()
    return OrderView(
        order_id=order_id,
        status=order.status,
        currency=order.currency,
        due=max(0, order.amount_due - order.authorised),
        unpaid=order.amount_due,
        refund_due=order.refund_due,
        on_hold=order.hold is not None,
        books={one.payment_reference: Books(one.open, one.captured - one.refunded) for one in order.payments},
        shipment_ids=tuple([one.shipment_id for one in order.shipments]),
        return_ids=tuple([one.return_id for one in order.returns]),
        to_ship=tuple([LineQuantity(line_id, count) for line_id, count in left]),
    )


# --- state ---------------------------------------------------------------------------------------------------------


class Payment(msgspec.Struct, frozen=True):
    """What the provider did for one authorisation."""

    payment_reference: str
    amount: int
    captured: int = 0
    refunded: int = 0
    closed: bool = False  # voided

    @property
    def open(self) -> int:
        return 0 if self.closed else self.amount - self.captured

    @property
    def kept(self) -> int:
        return self.captured - self.refunded


class ParcelState(StrEnum):
    BOOKED = "booked"
    ON_THE_WAY = "on the way"
    DELIVERED = "delivered"
    LOST = "lost"
    CLOSED = "closed"  # cancelled, replaced or refunded


class Parcel(msgspec.Struct, frozen=True):
    """`shipment_id` is that of the order's shipment; a parcel that replaces a lost one is of the same."""

    shipment_id: str
    tracking_number: str
    lines: tuple[LineQuantity, ...]
    replacement: int = 0  # the first, the second, …
    state: ParcelState = ParcelState.BOOKED
    trackings: int = 0


class Fulfilment(msgspec.Struct, frozen=True):
    order: OrderView
    pending: Mapping[str, Any] = {}  # effects without an answer, by their ids
    payments: tuple[Payment, ...] = ()
    parcels: tuple[Parcel, ...] = ()
    restock_waits: int = 0  # in a row
    waits: bool = False  # for pieces
    failure: str | None = None  # why the order is to be cancelled
    refused: str | None = None  # why the process is stuck until an operator retries it

    def parcels_in(self, state: ParcelState) -> list[Parcel]:
        return [parcel for parcel in self.parcels if parcel.state is state]

    def books_of(self, payment: Payment) -> Books:
        return self.order.books.get(payment.payment_reference, Books())


CANCELLABLE = (OrderStatus.PENDING, OrderStatus.CONFIRMED)
# Commands that have to be carried out whatever became of the order.
_INDISPENSABLE = {command.__name__ for command in (RecordPayment, RequestReturn, ReceiveReturn)}


def evolve(state: Fulfilment | None, given: Input[OrderView]) -> Fulfilment:
    if state is None:
        assert isinstance(given, Received), "a process begins with an event of its subject"
        return Fulfilment(given.subject)
    match given:
        case Received(order):
            return replace(state, order=order)
        case Dispatched(command, order):
            waits = 0 if command == ShipItems.__name__ else state.restock_waits
            return replace(state, order=order, restock_waits=waits)
        case Refused(command, code, order):
            return _after_refusal(replace(state, order=order), command, code)
        case Retried(order) | Compensate(order):
            failure = "given up by an operator" if isinstance(given, Compensate) else state.failure
            return replace(state, order=order, refused=None, failure=failure)
        case Requested(effect_id, effect):
            return replace(state, pending={**state.pending, effect_id: effect})
        case Answered():
            return _after_answer(state, *given)
        case TimerFired(timer):
            return _after_timer(state, Timer(timer))
        case ProcessStuck():
            return state
        case _:
            assert_never(given)


def compensable(state: Fulfilment) -> bool:
    """Whether the order can be cancelled, or is."""
    order = state.order
    return order.status is OrderStatus.CANCELLED or (order.status in CANCELLABLE and not order.shipment_ids)


def _after_answer(state: Fulfilment, effect_id: str, effect: Any, outcome: Any) -> Fulfilment:
    pending = {name: other for name, other in state.pending.items() if name != effect_id}
    after = replace(state, pending=pending)
    if isinstance(effect, Authorise | Capture | Void | Refund):
        return _after_payment(after, effect_id, effect, outcome)
    return _after_parcel(after, effect_id, effect, outcome)


def _after_refusal(state: Fulfilment, command: str, code: str) -> Fulfilment:
    if command == ShipItems.__name__:
        if code == InsufficientStock.code:  # the warehouse has pieces that the stock does not know
            return _out_of_stock(state)
        if state.order.to_ship and not state.order.on_hold:  # else the order changed meanwhile
            return replace(state, refused=f"{command} refused: {code}")
    return replace(state, refused=f"{command} refused: {code}") if command in _INDISPENSABLE else state


def _after_payment(
    state: Fulfilment, effect_id: str, effect: Authorise | Capture | Void | Refund, outcome: Any
) -> Fulfilment:
    match effect, outcome:
        case Authorise(amount), Authorised():
            return replace(state, payments=(*state.payments, Payment(effect_id, amount)))
        case Authorise(), Declined(reason):
            return replace(state, failure=f"payment declined: {reason}")
        case Capture(reference, amount), Captured():
            return _with_payment(state, reference, captured=amount)
        case Capture(), Declined(reason):
            return replace(state, failure=f"payment declined: {reason}")
        case Void(reference), Voided():
            return _with_payment(state, reference, closed=True)
        case Refund(reference, amount), Refunded():
            return _with_payment(state, reference, refunded=amount)
        case _, Declined(reason):
            return replace(state, refused=f"{type(effect).__name__} declined: {reason}")
        case _:
            raise TypeError(f"{outcome!r} answers {effect!r}")


def _with_payment(
    state: Fulfilment, reference: str, *, captured: int = 0, refunded: int = 0, closed: bool = False
) -> Fulfilment:
    payments = [
        replace(one, captured=one.captured + captured, refunded=one.refunded + refunded, closed=one.closed or closed)
        if one.payment_reference == reference
        else one
        for one in state.payments
    ]
    return replace(state, payments=tuple(payments))


def _after_parcel(state: Fulfilment, effect_id: str, effect: Any, outcome: Any) -> Fulfilment:
    match effect, outcome:
        case BookParcel(replaces=None), ParcelBooked(number, _, lines):
            return replace(state, parcels=(*state.parcels, Parcel(effect_id, number, lines)))
        case BookParcel(_, lines, replaces=str(lost)), ParcelBooked(number, lines=booked) if booked == lines:
            before = next(one for one in state.parcels if one.tracking_number == lost)
            parcel = Parcel(before.shipment_id, number, lines, before.replacement + 1)
            return _with_parcel(replace(state, parcels=(*state.parcels, parcel)), lost, ParcelState.CLOSED)
        case BookParcel(replaces=None), OutOfStock():
            return _out_of_stock(state)
        case BookParcel(replaces=str(lost)), OutOfStock():
            parcels = [
                replace(one, replacement=MAX_REPLACEMENTS) if one.tracking_number == lost else one
                for one in state.parcels
            ]
            return replace(state, parcels=tuple(parcels))
        case HandOver(number), HandedOver():
            return _with_parcel(state, number, ParcelState.ON_THE_WAY)
        case CancelParcel(number), ParcelCancelled():
            return _with_parcel(state, number, ParcelState.CLOSED)
        case TrackParcel(number), Delivered():
            return _with_parcel(state, number, ParcelState.DELIVERED)
        case TrackParcel(number), Lost():
            return _with_parcel(state, number, ParcelState.LOST)
        case TrackParcel(number), OnTheWay():
            parcel = next(one for one in state.parcels if one.tracking_number == number)
            lost_now = parcel.trackings + 1 >= MAX_TRACKINGS
            return _with_parcel(state, number, ParcelState.LOST if lost_now else ParcelState.ON_THE_WAY)
        case _:
            raise TypeError(f"{outcome!r} answers {effect!r}")


def _out_of_stock(state: Fulfilment) -> Fulfilment:
    given_up = state.restock_waits >= MAX_RESTOCK_WAITS and not state.order.shipment_ids
    failure = "out of stock" if given_up else state.failure
    return replace(state, restock_waits=state.restock_waits + 1, waits=True, failure=failure)


def _with_parcel(state: Fulfilment, tracking_number: str, after: ParcelState) -> Fulfilment:
    parcels = [
        replace(one, state=after, trackings=one.trackings + (one.state is after))
        if one.tracking_number == tracking_number
        else one
        for one in state.parcels
    ]
    return replace(state, parcels=tuple(parcels))


def _after_timer(state: Fulfilment, timer: Timer) -> Fulfilment:
    match timer:
        case Timer.PAYMENT:
            return replace(state, failure="payment not answered in time")
        case Timer.REVIEW:
            return replace(state, failure="review not finished in time") if state.order.on_hold else state
        case Timer.PARCEL:
            return replace(state, failure="no parcel in time")
        case Timer.RESTOCK:
            return replace(state, waits=False)
        case Timer.TRACK:
            return state
        case _:
            assert_never(timer)
