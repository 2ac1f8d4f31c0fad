"""What advances a process, decided without a store: one append over the process and the order."""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from unittest.mock import patch

import pytest

from command_service import processes
from command_service.gateways.carrier import BookParcel, HandedOver, Lost, ParcelBooked
from command_service.gateways.payment import Authorise, Authorised, Declined
from command_service.processes.advance import (
    DEFINITIONS,
    Answer,
    Failed,
    SubjectChanged,
    TimerDue,
)
from command_service.processes.fulfilment import FULFILMENT
from command_service.processes.interventions import ProcessNotStuck, RetryProcess
from shared.aggregates import RegistrationError
from shared.aggregates.order import (
    ORDER,
    LineQuantity,
    OrderCancelled,
    OrderConfirmed,
    OrderHeld,
    OrderHoldReleased,
    OrderItemsReserved,
    OrderPlaced,
    OrderReservationExpired,
    OrderShipped,
    PaymentAuthorised,
    PaymentCaptured,
    ShippingAddressChanged,
)
from shared.aggregates.payment import PaymentReferenceAssigned
from shared.aggregates.process import (
    PROCESS,
    CommandDispatched,
    CommandRefused,
    EffectAnswered,
    EffectRequested,
    EventReceived,
    ProcessEnded,
    ProcessRetried,
    ProcessStarted,
    ProcessStuck,
    RequestedEffect,
    TimerCancelled,
    TimerFired,
    TimerSet,
    fold,
)
from shared.aggregates.stock import Stock
from tests.command_service.fulfilments import (
    AUTHORISE,
    BOOK,
    HAND_OVER,
    NOW,
    ORDER_42,
    PLACED,
    PROCESS_42,
    Log,
    captured,
    names,
    placed,
)


def test_a_process_begins_with_the_event_that_its_definition_names() -> None:
    log = Log(PLACED)
    appended = log.see(OrderPlaced)

    assert appended.keys() == {PROCESS_42}
    started, received, requested, timer = appended[PROCESS_42]
    assert started == ProcessStarted("fulfilment", "42", 1)
    assert isinstance(received, EventReceived)
    assert requested == EffectRequested(AUTHORISE, "Authorise", {"amount": 1000, "currency": "GBP"})
    assert timer == TimerSet("payment", NOW + timedelta(hours=1))


def test_an_order_that_was_placed_before_has_no_process() -> None:
    assert Log(PLACED).see(ShippingAddressChanged) == {}
    assert Log().see(OrderPlaced) == {}


@pytest.mark.promise("processes", "A reaction and the events of its commands are one append")
def test_an_answer_and_the_events_of_its_command_are_one_append() -> None:
    appended = placed().when(Answer(AUTHORISE, Authorised()))

    assert appended[ORDER_42] == [PaymentAuthorised(AUTHORISE, 1000), OrderConfirmed()]
    assert appended[f"payment-{AUTHORISE}"] == [PaymentReferenceAssigned(AUTHORISE, "42")]
    expected = ["EffectAnswered", "TimerCancelled", "CommandDispatched", "EffectRequested", "TimerSet"]
    assert names(appended[PROCESS_42]) == expected
    assert appended[PROCESS_42][3].effect == "Capture"


def test_what_was_reacted_to_is_not_reacted_to_again() -> None:
    log = placed()
    assert log.when(SubjectChanged(1, OrderPlaced.__name__)) == {}
    log.when(Answer(AUTHORISE, Authorised()))

    assert log.when(Answer(AUTHORISE, Authorised())) == {}
    log.now = NOW + timedelta(hours=1)
    assert log.when(TimerDue("payment")) != {}
    assert log.when(TimerDue("payment")) == {}


def test_an_event_that_changes_nothing_for_the_process_is_not_recorded() -> None:
    log = placed()
    log.append(ShippingAddressChanged("work"))
    assert log.see(ShippingAddressChanged) == {}


def test_a_timer_fires_when_it_is_due() -> None:
    log = placed()
    log.now = NOW + timedelta(minutes=59)
    assert log.when(TimerDue("payment")) == {}
    log.now = NOW + timedelta(minutes=60)

    appended = log.when(TimerDue("payment"))

    assert appended[PROCESS_42][0] == TimerFired("payment")
    assert appended[ORDER_42] == [OrderCancelled("payment not answered in time", 0)]


def test_a_declined_payment_cancels_the_order() -> None:
    appended = placed().when(Answer(AUTHORISE, Declined("no funds")))

    assert appended[ORDER_42] == [OrderCancelled("payment declined: no funds", 0)]
    assert appended[PROCESS_42][-1] == ProcessEnded("cancelled")


def test_a_suspected_fraud_holds_the_order_until_staff_decides() -> None:
    log = placed()
    appended = log.when(Answer(AUTHORISE, Authorised(in_review=True)))
    assert appended[ORDER_42][-1] == OrderHeld("payment in review")
    assert TimerSet("review", NOW + timedelta(days=3)) in appended[PROCESS_42]
    assert not [event for event in appended[PROCESS_42] if isinstance(event, EffectRequested)]

    log.now = NOW + timedelta(days=3)
    appended = log.when(TimerDue("review"))

    assert appended[ORDER_42] == [OrderCancelled("review not finished in time", 0)]
    assert appended[PROCESS_42][-1].effect == "Void"


def test_a_cancelled_order_is_refunded_once_its_parcel_is_unpacked() -> None:
    log = captured()
    log.append(OrderCancelled("changed my mind", 1000))
    log.see(OrderCancelled)
    booked = ParcelBooked("track-1", "Royal Mail", (LineQuantity("1", 2),))

    appended = log.when(Answer(BOOK, booked))

    assert ORDER_42 not in appended
    refused = appended[PROCESS_42][-2]
    assert isinstance(refused, CommandRefused)
    assert (refused.command, refused.code) == ("ShipItems", "order-not-confirmed")
    assert appended[PROCESS_42][-1].effect == "CancelParcel"
    appended = log.when(Answer(HAND_OVER, FULFILMENT.message("ParcelCancelled", {})))
    assert (appended[PROCESS_42][-1].effect, appended[PROCESS_42][-1].data["amount"]) == ("Refund", 1000)


def test_a_parcel_leaves_after_the_order_records_it() -> None:
    log = captured()
    requested = log.states[PROCESS_42].effects[BOOK]
    effect = FULFILMENT.message(requested.effect, requested.data)
    assert effect == BookParcel("42", (LineQuantity("1", 2),))

    appended = log.when(Answer(BOOK, ParcelBooked("track-1", "Royal Mail", effect.lines)))

    assert appended[ORDER_42] == [OrderShipped("track-1", "Royal Mail", BOOK)]
    assert appended[PROCESS_42][-1].effect == "HandOver"


def booked_without_stock() -> dict[str, list[Any]]:
    """The carrier has packed what the stock of the shop does not have: its reservation expired before the payment."""
    log = captured()
    log.append(OrderItemsReserved(("MUG",)), OrderReservationExpired())
    log.states["stock-MUG"] = Stock(on_hand=1)
    return log.when(Answer(BOOK, ParcelBooked("track-1", "Royal Mail", (LineQuantity("1", 2),))))


def test_a_parcel_that_the_stock_cannot_give_is_unpacked_and_asked_for_again_later() -> None:
    appended = booked_without_stock()

    assert appended.keys() == {PROCESS_42}
    assert names(appended[PROCESS_42])[2:] == ["CommandRefused", "TimerSet", "EffectRequested"]
    refused, timer, requested = appended[PROCESS_42][2:]
    assert (refused.command, refused.code) == ("ShipItems", "insufficient-stock")
    assert (timer.timer, requested.effect) == ("restock", "CancelParcel")


def test_a_review_that_ended_leaves_no_timer() -> None:
    log = placed()
    log.when(Answer(AUTHORISE, Authorised(in_review=True)))
    log.append(OrderHoldReleased())

    assert TimerCancelled("review") in log.see(OrderHoldReleased)[PROCESS_42]


def test_a_replacement_in_part_needs_an_operator() -> None:
    log = captured()
    log.when(Answer(BOOK, ParcelBooked("track-1", "Royal Mail", (LineQuantity("1", 2),))))
    log.when(Answer(HAND_OVER, HandedOver()))
    [lost] = log.when(Answer("fulfilment-42-5", Lost()))[PROCESS_42][1:]
    assert (lost.effect, lost.data["replaces"]) == ("BookParcel", "track-1")

    with pytest.raises(TypeError, match="ParcelBooked"):
        log.when(Answer(lost.effect_id, ParcelBooked("track-2", "Royal Mail", (LineQuantity("1", 1),))))


@pytest.mark.promise("processes", "A process that fails is stuck alone until an operator retries it")
def test_a_process_that_failed_waits_for_a_retry() -> None:
    log = placed()
    assert log.when(Failed("KeyError")) == {PROCESS_42: [ProcessStuck("KeyError")]}
    assert log.when(Answer(AUTHORISE, Authorised())) == {}
    assert log.when(Failed("KeyError")) == {}
    log.append(OrderCancelled("changed my mind", 0))
    assert log.see(OrderCancelled) == {}

    retried = log.give(RetryProcess("fulfilment-42"))

    assert names(retried[PROCESS_42]) == ["ProcessRetried"]
    assert retried[PROCESS_42][0].subject["status"] == "CANCELLED"
    appended = log.when(Answer(AUTHORISE, Authorised()))
    assert (appended[ORDER_42][0], appended[PROCESS_42][-1].effect) == (PaymentAuthorised(AUTHORISE, 1000), "Void")
    with pytest.raises(ProcessNotStuck):
        log.give(RetryProcess("fulfilment-42"))


def test_a_refund_that_is_declined_needs_an_operator() -> None:
    log = captured()
    log.append(OrderCancelled("changed my mind", 1000))
    log.see(OrderCancelled)
    log.when(Answer(BOOK, FULFILMENT.message("OutOfStock", {})))
    requested = log.states[PROCESS_42].effects[HAND_OVER]
    assert requested.effect == "Refund"

    appended = log.when(Answer(HAND_OVER, Declined("account closed")))

    assert appended[PROCESS_42][-1] == ProcessStuck("Refund declined: account closed")
    assert log.give(RetryProcess("fulfilment-42"))[PROCESS_42][-1].effect == "Refund"


def test_a_process_ends_under_the_version_that_it_began_with() -> None:
    log = placed()
    with patch.dict(DEFINITIONS, {"fulfilment": dict(DEFINITIONS["fulfilment"])}):

        def surprised(*_: Any) -> Any:
            raise AssertionError("a running process reacts as before")

        newer = {**FULFILMENT.__dict__, "react": surprised, "version": 2}
        for cached in ("begin_types", "message_types"):
            newer.pop(cached, None)
        processes.register(type(FULFILMENT)(**newer))
        assert log.when(Answer(AUTHORISE, Authorised())) != {}
        with pytest.raises(AssertionError):
            placed()


def test_a_definition_is_registered_once() -> None:
    with pytest.raises(RegistrationError):
        processes.register(FULFILMENT)


def test_the_document_says_what_a_process_waits_for() -> None:
    log = placed()
    events: list[Any] = [
        ProcessStarted("fulfilment", "42", 1),
        EffectRequested(AUTHORISE, Authorise.__name__, {}),
        TimerSet("payment", log.states[PROCESS_42].timers["payment"]),
    ]
    shown = None
    for version, event in enumerate(events, 1):
        shown = fold("fulfilment-42", shown, event, version, NOW)
    assert shown is not None
    assert (shown.state, shown.effects) == ("running", {AUTHORISE: RequestedEffect(Authorise.__name__, NOW)})
    assert shown.timers == {"payment": NOW + timedelta(hours=1)}


def test_the_streams_are_of_their_aggregates() -> None:
    assert (ORDER.stream_of("42"), PROCESS.stream_of("fulfilment-42")) == (ORDER_42, PROCESS_42)
    assert {EffectAnswered, CommandDispatched, ProcessRetried, PaymentCaptured} <= {*PROCESS.events, *ORDER.events}
