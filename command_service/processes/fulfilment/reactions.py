"""What a fulfilment does next. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import assert_never

from command_service.domain.order import (
    CancelOrder,
    CapturePayment,
    ConfirmPayment,
    ConfirmShipmentDelivery,
    HoldOrder,
    OrderCommand,
    ReceiveReturn,
    RecordPayment,
    RefundPayment,
    RequestReturn,
    ShipItems,
    VoidPayment,
)
from command_service.domain.stock import InsufficientStock
from command_service.gateways.carrier import (
    BookParcel,
    CancelParcel,
    Delivered,
    HandedOver,
    HandOver,
    OutOfStock,
    ParcelBooked,
    TrackParcel,
)
from command_service.gateways.payment import (
    Authorise,
    Authorised,
    Capture,
    Captured,
    Refund,
    Refunded,
    Void,
    Voided,
)
from command_service.processes.definition import (
    Answered,
    CancelTimer,
    Dispatch,
    End,
    Input,
    Output,
    Refused,
    Request,
    SetTimer,
    Stop,
)
from command_service.processes.fulfilment.state import (
    CANCELLABLE,
    MAX_REPLACEMENTS,
    Books,
    Fulfilment,
    OrderView,
    Parcel,
    ParcelState,
    Timer,
)
from shared.aggregates.order import OrderStatus, ReceivedLine
from shared.aggregates.process import TimerFired

AFTER = {
    Timer.PAYMENT: timedelta(hours=1),
    Timer.REVIEW: timedelta(days=3),
    Timer.PARCEL: timedelta(days=2),
    Timer.RESTOCK: timedelta(days=1),
    Timer.TRACK: timedelta(hours=12),
}


def reacting(
    step: Callable[[Fulfilment], Sequence[Output]],
) -> Callable[[Fulfilment, Input[OrderView]], Iterable[Output]]:
    """`step` returns what is missing now, of a fulfilment that waits for no answer."""

    def following(state: Fulfilment) -> Sequence[Output]:
        order = state.order
        if state.failure is not None and order.status in CANCELLABLE and not order.shipment_ids:
            return [Dispatch(CancelOrder(order.order_id, state.failure))]
        if state.pending:
            return []
        return [Stop(state.refused)] if state.refused is not None else step(state)

    def react(state: Fulfilment, given: Input[OrderView]) -> Iterable[Output]:
        match given:
            case Answered():
                commands = [Dispatch(command) for command in _commands(state, given)]
                # What a command changes is reacted to once it is dispatched.
                return [*_timers(state, given), *_tracking(given), *(commands or following(state))]
            case TimerFired(timer) if timer == Timer.TRACK:
                asked = [TrackParcel(one.tracking_number) for one in state.parcels_in(ParcelState.ON_THE_WAY)]
                return [Request(effect) for effect in asked if effect not in state.pending.values()]
            case Refused(ShipItems.__name__, InsufficientStock.code):
                return [_set(Timer.RESTOCK), *following(state)]
            case _ if not state.order.on_hold:  # the review ended, or there is none
                return [CancelTimer(Timer.REVIEW), *following(state)]
            case _:
                return following(state)

    return react


def _timers(state: Fulfilment, given: Answered) -> Iterator[Output]:
    match given.effect, given.outcome:
        case Authorise(), Authorised(in_review=True):
            yield CancelTimer(Timer.PAYMENT)
            yield _set(Timer.REVIEW)
        case Authorise() | Capture(), _:
            yield CancelTimer(Timer.PAYMENT)
        case BookParcel(), outcome:
            yield CancelTimer(Timer.PARCEL)
            if isinstance(outcome, OutOfStock):
                yield _set(Timer.RESTOCK)
        case TrackParcel(), _ if state.parcels_in(ParcelState.ON_THE_WAY) and not _is_tracking(state):
            yield _set(Timer.TRACK)
        case _:
            pass


def _tracking(given: Answered) -> Iterator[Output]:
    """A parcel is asked for as soon as it has left, and then at intervals."""
    if isinstance(given.effect, HandOver) and isinstance(given.outcome, HandedOver):
        yield Request(TrackParcel(given.effect.tracking_number))


def _is_tracking(state: Fulfilment) -> bool:
    return any(isinstance(effect, TrackParcel) for effect in state.pending.values())


def _commands(state: Fulfilment, given: Answered) -> Iterator[OrderCommand]:
    """The commands that record on the order what a gateway did."""
    order, effect_id = state.order, given.effect_id
    match given.effect, given.outcome:
        case Authorise(amount), Authorised(in_review):
            yield RecordPayment(order.order_id, effect_id, amount, captured=False)
            if in_review:
                yield HoldOrder(order.order_id, "payment in review")
        case Capture(reference, amount), Captured():
            yield CapturePayment(order.order_id, reference, amount)
        case Void(reference), Voided() if order.books.get(reference, Books()).open:
            yield VoidPayment(order.order_id, reference, state.failure)
        case Refund(reference), Refunded():
            payment = next(one for one in state.payments if one.payment_reference == reference)
            if (amount := state.books_of(payment).kept - payment.kept) > 0:
                reason = state.failure or "owed back"
                yield RefundPayment(order.order_id, effect_id, reference, amount, reason)
        case BookParcel(replaces=None), ParcelBooked(number, carrier, lines):
            yield ShipItems(order.order_id, effect_id, number, carrier, lines)
        case TrackParcel(number), Delivered():
            parcel = next(one for one in state.parcels if one.tracking_number == number)
            yield ConfirmShipmentDelivery(order.order_id, parcel.shipment_id)
        case _:
            pass


def orchestrate(state: Fulfilment) -> Sequence[Output]:
    """Parcels first, then money, then what leads on."""
    on_hold = state.order.on_hold
    match state.order.status:
        case OrderStatus.PENDING:
            return _parcels(state) or _pay(state)
        case OrderStatus.CONFIRMED:
            return _parcels(state) or ([] if on_hold else _settle(state) or _pay(state) or _ship(state))
        case OrderStatus.SHIPPED:
            return _parcels(state) or _settle(state)
        case OrderStatus.DELIVERED:
            return _parcels(state) or _settle(state) or [End("delivered")]
        case OrderStatus.CANCELLED:
            return _parcels(state) or _settle(state) or [End("cancelled")]
        case _:
            assert_never(state.order.status)


def pay(state: Fulfilment) -> Sequence[Output]:
    """The money alone."""
    match state.order.status:
        case OrderStatus.PENDING:
            return _pay(state)
        case OrderStatus.CONFIRMED:
            return [] if state.order.on_hold else _settle(state) or _pay(state)
        case OrderStatus.SHIPPED:
            return _settle(state)
        case OrderStatus.DELIVERED:
            return _settle(state) or [End("delivered")]
        case OrderStatus.CANCELLED:
            return _settle(state) or [End("cancelled")]
        case _:
            assert_never(state.order.status)


def ship(state: Fulfilment) -> Sequence[Output]:
    """The parcels alone."""
    match state.order.status:
        case OrderStatus.PENDING | OrderStatus.SHIPPED:
            return _parcels(state)
        case OrderStatus.CONFIRMED:
            return _parcels(state) or ([] if state.order.on_hold else _ship(state))
        case OrderStatus.DELIVERED:
            return _parcels(state) or [End("delivered")]
        case OrderStatus.CANCELLED:
            return _parcels(state) or [End("cancelled")]
        case _:
            assert_never(state.order.status)


def _parcels(state: Fulfilment) -> Sequence[Output]:
    order = state.order
    for parcel in state.parcels_in(ParcelState.BOOKED):
        if parcel.shipment_id in order.shipment_ids:
            return [Request(HandOver(parcel.tracking_number))]
        return [Request(CancelParcel(parcel.tracking_number))]  # the order was cancelled or held meanwhile
    for parcel in state.parcels_in(ParcelState.LOST):
        if parcel.replacement < MAX_REPLACEMENTS:
            return [Request(BookParcel(order.order_id, parcel.lines, replaces=parcel.tracking_number))]
        if parcel.shipment_id not in order.return_ids:
            return [Dispatch(command) for command in _write_off(order.order_id, parcel)]
    return []


def _write_off(order_id: str, parcel: Parcel) -> Iterator[OrderCommand]:
    """Books the pieces of a lost parcel as a return, which makes their price owed back, and closes the shipment."""
    received = tuple([ReceivedLine(line.line_id, line.quantity, restock=False) for line in parcel.lines])
    yield RequestReturn(order_id, parcel.shipment_id, parcel.lines, "lost by the carrier")
    yield ReceiveReturn(order_id, parcel.shipment_id, received)
    yield ConfirmShipmentDelivery(order_id, parcel.shipment_id)


def _settle(state: Fulfilment) -> Sequence[Output]:
    """Gives up what is authorised and not needed, then gives back what is owed."""
    order = state.order
    for payment in state.payments:
        needed = order.unpaid and state.books_of(payment).open
        if payment.open and not needed:
            return [Request(Void(payment.payment_reference))]
    unrecorded = sum([max(0, state.books_of(one).kept - one.kept) for one in state.payments])  # refunds
    owed = order.refund_due - unrecorded
    for payment in state.payments:
        # The provider keeps what the order knows nothing of where the order refused to record it.
        amount = max(payment.kept - state.books_of(payment).kept, min(payment.kept, owed))
        if amount > 0:
            return [Request(Refund(payment.payment_reference, amount))]
    return []


def _pay(state: Fulfilment) -> Sequence[Output]:
    order = state.order
    if order.status is OrderStatus.PENDING:
        if not order.unpaid:
            return [Dispatch(ConfirmPayment(order.order_id, f"nothing-due-{order.order_id}", 0))]
        if not order.due:  # the order became cheaper after it was authorised in part
            return [Request(Void(one.payment_reference)) for one in state.payments if one.open][:1]
    elif order.unpaid:
        for payment in state.payments:
            if payment.open:
                amount = min(payment.open, state.books_of(payment).open, order.unpaid)
                return [Request(Capture(payment.payment_reference, amount)), _set(Timer.PAYMENT)]
    return [Request(Authorise(order.due, order.currency)), _set(Timer.PAYMENT)] if order.due else []


def _ship(state: Fulfilment) -> Sequence[Output]:
    order = state.order
    if state.waits or not order.to_ship:
        return []
    return [Request(BookParcel(order.order_id, order.to_ship)), _set(Timer.PARCEL)]


def _set(timer: Timer) -> SetTimer:
    return SetTimer(timer, AFTER[timer])
