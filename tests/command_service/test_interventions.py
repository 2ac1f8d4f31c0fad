"""What operators do about a process: given what happened to it, when one intervenes, then what follows."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import pytest

from command_service.gateways.carrier import BookParcel, HandedOver, OnTheWay, ParcelBooked
from command_service.gateways.payment import Authorised, Declined
from command_service.processes.advance import DEFINITIONS, Answer, Failed, TimerDue
from command_service.processes.fulfilment import FULFILMENT
from command_service.processes.fulfilment.reactions import AFTER
from command_service.processes.fulfilment.state import Timer
from command_service.processes.interventions import (
    CompensateProcess,
    NotCompensable,
    OutcomeNotOffered,
    ProcessAlreadyEnded,
    ProcessFailsAgain,
    ProcessNotFound,
    ProcessNotStuck,
    RetryProcess,
    SkipStep,
    SkipTimer,
    StepNotFound,
)
from shared.aggregates.order import LineQuantity, OrderCancelled, OrderConfirmed, OrderShipped, PaymentRefunded
from shared.aggregates.process import (
    CompensationRequested,
    EffectRequested,
    ProcessEnded,
    ProcessRetried,
    ProcessStarted,
    ProcessStuck,
    StepSkipped,
    TimerCancelled,
)
from shared.errors import OrdersError
from tests.command_service.fulfilments import (
    AUTHORISE,
    BOOK,
    HAND_OVER,
    ORDER_42,
    PLACED,
    PROCESS_42,
    Log,
    captured,
    names,
    placed,
)

ID = "fulfilment-42"
PARCEL = {"tracking_number": "track-1", "carrier": "Royal Mail", "lines": [{"line_id": "1", "quantity": 2}]}


def stuck(log: Log) -> Log:
    """A reaction raised."""
    log.when(Failed("Answer: KeyError"))
    return log


def refund_declined() -> Log:
    """The order is cancelled after its payment was captured, and its refund is declined."""
    log = captured()
    log.append(OrderCancelled("changed my mind", 1000))
    log.see(OrderCancelled)
    log.when(Answer(BOOK, FULFILMENT.message("OutOfStock", {})))
    assert log.when(Answer(HAND_OVER, Declined("account closed")))[PROCESS_42][-1] == ProcessStuck(
        "Refund declined: account closed"
    )
    return log


def on_the_way() -> Log:
    log = captured()
    log.when(Answer(BOOK, ParcelBooked("track-1", "Royal Mail", (LineQuantity("1", 2),))))
    log.when(Answer(HAND_OVER, HandedOver()))
    log.when(Answer("fulfilment-42-5", OnTheWay()))
    return log


# --- retry ---------------------------------------------------------------------------------------------------------


@pytest.mark.promise("processes", "A process that fails is stuck alone until an operator retries it")
def test_a_retried_process_takes_in_the_answer_that_it_missed() -> None:
    log = stuck(placed())
    assert log.when(Answer(AUTHORISE, Authorised())) == {}

    assert names(log.give(RetryProcess(ID))[PROCESS_42]) == ["ProcessRetried"]

    assert log.when(Answer(AUTHORISE, Authorised()))[ORDER_42][-1] == OrderConfirmed()


def test_a_retried_process_asks_anew_for_what_was_declined() -> None:
    retried, requested = refund_declined().give(RetryProcess(ID))[PROCESS_42]
    assert isinstance(retried, ProcessRetried)
    assert (requested.effect_id, requested.effect) == ("fulfilment-42-5", "Refund")


@pytest.mark.promise("processes", "A process that fails when it begins is stuck, and begins when it is retried")
def test_a_process_that_failed_when_it_began_begins_when_it_is_retried() -> None:
    log = Log(PLACED)
    failed = Failed("SubjectChanged: KeyError")
    assert log.when(failed)[PROCESS_42] == [ProcessStarted("fulfilment", "42", 1), ProcessStuck(failed.reason)]
    log.append(OrderCancelled("changed my mind", 0))
    assert log.see(OrderCancelled) == {}

    appended = log.give(RetryProcess(ID))

    assert names(appended[PROCESS_42]) == ["ProcessRetried", "EventReceived", "ProcessEnded"]


@pytest.mark.parametrize("command", [SkipStep(ID, "Authorised"), CompensateProcess(ID)])
def test_a_process_that_failed_when_it_began_can_be_skipped_or_compensated(command: Any) -> None:
    log = Log(PLACED)
    log.when(Failed("SubjectChanged: KeyError"))

    appended = log.give(command)

    compensates = isinstance(command, CompensateProcess)
    assert type(appended[ORDER_42][-1]) is (OrderCancelled if compensates else OrderConfirmed)


# --- skip ----------------------------------------------------------------------------------------------------------


@pytest.mark.promise("processes", "An operator answers the step that a process is stuck on in place of its gateway")
def test_a_skipped_step_has_the_outcome_that_the_operator_gives() -> None:
    log = stuck(captured())

    appended = log.give(SkipStep(ID, "ParcelBooked", PARCEL))

    assert appended[ORDER_42] == [OrderShipped("track-1", "Royal Mail", BOOK)]
    retried, skipped, *_ = appended[PROCESS_42]
    assert isinstance(retried, ProcessRetried)
    assert isinstance(skipped, StepSkipped)
    assert (skipped.effect_id, skipped.effect, skipped.outcome) == (BOOK, BookParcel.__name__, "ParcelBooked")
    assert appended[PROCESS_42][-1].effect == "HandOver"
    assert log.when(Answer(BOOK, FULFILMENT.message("OutOfStock", {}))) == {}, "the gateway answers too late"


def test_a_declined_step_that_was_done_by_hand_is_skipped_without_the_gateway() -> None:
    log = refund_declined()

    appended = log.give(SkipStep(ID, "Refunded"))

    assert names(appended[ORDER_42]) == [PaymentRefunded.__name__]
    assert names(appended[PROCESS_42])[:2] == ["ProcessRetried", "StepSkipped"]
    assert not [event for event in appended[PROCESS_42] if isinstance(event, EffectRequested)]
    assert appended[PROCESS_42][-1] == ProcessEnded("cancelled")
    assert log.states[PROCESS_42].requests == 5


def test_a_timer_that_makes_it_fail_is_skipped() -> None:
    log = stuck(placed())

    appended = log.give(SkipTimer(ID, "payment"))

    assert appended[PROCESS_42][1:] == [TimerCancelled("payment")]
    assert log.states[PROCESS_42].effects.keys() == {AUTHORISE}


def test_of_several_steps_the_operator_names_one() -> None:
    log = stuck(placed())
    with pytest.raises(StepNotFound) as refused:
        log.give(SkipStep(ID, "Authorised", effect_id="fulfilment-42-9"))
    assert (refused.value.effects, refused.value.timers) == ({AUTHORISE: "Authorise"}, ["payment"])
    assert log.give(SkipStep(ID, "Authorised", effect_id=AUTHORISE))[ORDER_42][-1] == OrderConfirmed()


def test_a_process_that_asks_for_nothing_has_no_step_to_skip() -> None:
    log = on_the_way()
    log = stuck(log)
    with pytest.raises(StepNotFound) as refused:
        log.give(SkipStep(ID, "Delivered"))
    assert refused.value.timers == ["track"]


@pytest.mark.parametrize(
    ("outcome", "data", "reason"),
    [("Captured", {}, "none of them"), ("Declined", {}, "reason"), ("Authorised", {"in_review": 1}, "in_review")],
)
def test_an_outcome_that_the_step_does_not_have_is_refused(outcome: str, data: dict[str, Any], reason: str) -> None:
    with pytest.raises(OutcomeNotOffered, match=reason) as refused:
        stuck(placed()).give(SkipStep(ID, outcome, data))
    assert (refused.value.effect, refused.value.offered) == ("Authorise", ["Authorised", "Declined"])


# --- compensate ----------------------------------------------------------------------------------------------------


@pytest.mark.promise("processes", "An operator has a process give back what it took: its order is cancelled")
@pytest.mark.parametrize("is_stuck", [True, False])
def test_a_compensated_fulfilment_cancels_its_order_and_gives_back_what_it_took(is_stuck: bool) -> None:
    log = stuck(captured()) if is_stuck else captured()

    appended = log.give(CompensateProcess(ID))

    assert isinstance(appended[PROCESS_42][0], CompensationRequested)
    assert appended[ORDER_42] == [OrderCancelled("given up by an operator", 1000)]
    appended = log.when(Answer(BOOK, FULFILMENT.message("OutOfStock", {})))
    assert (appended[PROCESS_42][-1].effect, appended[PROCESS_42][-1].data["amount"]) == ("Refund", 1000)
    assert log.when(Answer(HAND_OVER, FULFILMENT.message("Refunded", {})))[PROCESS_42][-1] == ProcessEnded("cancelled")


def test_a_parcel_that_has_left_cannot_be_taken_back() -> None:
    log = on_the_way()
    with pytest.raises(NotCompensable):
        log.give(CompensateProcess(ID))
    log.now += AFTER[Timer.TRACK]
    assert log.when(TimerDue("track")) != {}, "it goes on as before"


def test_the_compensation_of_a_kind_that_takes_nothing_back_is_refused() -> None:
    log = placed()
    irreversible = replace(FULFILMENT, compensable=lambda _: False)
    with patch.dict(DEFINITIONS, {"fulfilment": {1: irreversible}}), pytest.raises(NotCompensable):
        log.give(CompensateProcess(ID))


# --- refusals ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [RetryProcess(ID), SkipStep(ID, "Authorised"), SkipTimer(ID, "payment")])
def test_only_a_stuck_process_is_retried_or_skipped(command: Any) -> None:
    with pytest.raises(ProcessNotStuck, match="is running"):
        placed().give(command)


@pytest.mark.parametrize(
    ("command", "refusal"),
    [
        (RetryProcess(ID), ProcessNotStuck),
        (SkipStep(ID, "Refunded"), ProcessNotStuck),
        (CompensateProcess(ID), ProcessAlreadyEnded),
    ],
)
def test_a_process_that_ended_stays_as_it_is(command: Any, refusal: type[OrdersError]) -> None:
    log = placed()
    log.when(Answer(AUTHORISE, Declined("no funds")))
    with pytest.raises(refusal):
        log.give(command)


@pytest.mark.parametrize("make", [RetryProcess, CompensateProcess])
@pytest.mark.parametrize("process_id", ["fulfilment-43", "no_such_kind-42", "nothing"])
def test_there_is_no_such_process(make: Any, process_id: str) -> None:
    log = placed()
    log.states |= {f"process-{process_id}": None, "order-43": None}
    with pytest.raises(ProcessNotFound):
        log.give(make(process_id))


@pytest.mark.parametrize("command", [RetryProcess(ID), SkipStep(ID, "Authorised"), CompensateProcess(ID)])
def test_a_process_that_fails_again_is_stuck_as_before(command: Any) -> None:
    log = stuck(placed())
    before = log.states[PROCESS_42]

    def fails(*_: Any) -> Any:
        raise KeyError("1")

    with (
        patch.dict(DEFINITIONS, {"fulfilment": {1: replace(FULFILMENT, react=fails)}}),
        pytest.raises(ProcessFailsAgain, match="KeyError"),
    ):
        log.give(command)
    assert log.states[PROCESS_42] is before


def test_a_tracked_parcel_that_arrived_is_skipped_to_its_delivery() -> None:
    log = on_the_way()
    log.now += AFTER[Timer.TRACK]
    (requested,) = [one for one in log.when(TimerDue("track"))[PROCESS_42] if isinstance(one, EffectRequested)]
    stuck(log)

    appended = log.give(SkipStep(ID, "Delivered"))

    assert requested.effect == "TrackParcel"
    assert appended[PROCESS_42][-1] == ProcessEnded("delivered")
