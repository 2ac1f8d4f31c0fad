"""Every rule of an order's payments, both ways: pure, no server."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from command_service.domain.order import (
    ORDERS,
    CaptureExceedsAuthorisation,
    CapturePayment,
    ConfirmPayment,
    NothingToVoid,
    OrderNotPaid,
    PaymentAlreadyRecorded,
    PaymentAmountMismatch,
    PaymentNotFound,
    PaymentReferenceInUse,
    RecordPayment,
    RefundAlreadyRecorded,
    RefundExceedsPayment,
    RefundPayment,
    ShipOrder,
    TooManyEntries,
    VoidPayment,
    decide,
)
from shared.aggregates.order import (
    Order,
    OrderCancelled,
    OrderConfirmed,
    OrderEvent,
    OrderItemRemoved,
    OrderShipped,
    OrderStatus,
    PaymentAuthorised,
    PaymentCaptured,
    PaymentConfirmed,
    PaymentReceived,
    PaymentRefunded,
    PaymentVoided,
)
from shared.aggregates.payment import Payment, PaymentReferenceAssigned, payment_stream
from tests.given_when_then import fold, given
from tests.orders import TOTAL, cancelled, delivered, paid, placed, shipped

NOW = datetime(2026, 1, 31, 14, 30, tzinfo=UTC)

ORDER = "42"
PENDING: tuple[OrderEvent, ...] = (placed(),)
AUTHORISED = (*PENDING, PaymentAuthorised("pay-1", TOTAL), OrderConfirmed())
CONFIRMED = (*PENDING, paid())


def money(order: Order | None) -> tuple[int, int, int, int]:
    """What it costs, what was paid and kept, what is due, what is owed back."""
    assert order is not None
    return order.payable, order.paid, order.amount_due, order.refund_due


class TestRecording:
    def test_all_of_it_confirms_the_order(self) -> None:
        record = RecordPayment(ORDER, "pay-2", TOTAL, method="card")
        after = given(*PENDING).when(record).then(PaymentReceived("pay-2", TOTAL, "card"), OrderConfirmed())
        assert after is not None
        assert after.status is OrderStatus.CONFIRMED

    def test_an_authorisation_of_all_of_it_confirms_the_order(self) -> None:
        record = RecordPayment(ORDER, "pay-2", TOTAL, captured=False)
        after = given(*PENDING).when(record).then(PaymentAuthorised("pay-2", TOTAL), OrderConfirmed())
        assert money(after) == (TOTAL, 0, TOTAL, 0)

    def test_a_part_does_not_until_the_rest_comes(self) -> None:
        part = PaymentReceived("pay-2", TOTAL - 1)
        given(*PENDING).when(RecordPayment(ORDER, "pay-2", TOTAL - 1)).then(part)
        rest = RecordPayment(ORDER, "pay-3", 1, captured=False)
        given(*PENDING, part).when(rest).then(PaymentAuthorised("pay-3", 1), OrderConfirmed())

    @pytest.mark.parametrize(
        ("past", "owed"),
        [
            (CONFIRMED, 500),
            ((*CONFIRMED, shipped()), 500),
            ((*CONFIRMED, shipped(), delivered()), 500),
            ((*PENDING, cancelled()), 500),
            ((*CONFIRMED, cancelled(TOTAL)), TOTAL + 500),
        ],
    )
    @pytest.mark.promise("orders", "Money that comes late is recorded, not refused, and shows as owed back")
    def test_late_money_is_owed_back(self, past: tuple[OrderEvent, ...], owed: int) -> None:
        after = given(*past).when(RecordPayment(ORDER, "pay-2", 500)).then(PaymentReceived("pay-2", 500))
        assert money(after)[3] == owed

    def test_money_for_lines_that_were_taken_off_is_owed_back(self) -> None:
        part = PaymentReceived("pay-1", 3_000)
        state = fold(placed(), part, OrderItemRemoved("MUG"), OrderConfirmed())
        assert money(state) == (2_599, 3_000, 0, 401)

    @pytest.mark.parametrize("captured", [True, False])
    def test_the_same_again_changes_nothing(self, *, captured: bool) -> None:
        record = RecordPayment(ORDER, "pay-1", 500, captured, "card")
        state = fold(*PENDING, *decide(record, fold(*PENDING)))
        assert decide(record, state) == []

    @pytest.mark.parametrize(
        "other",
        [
            RecordPayment(ORDER, "pay-1", 499),
            RecordPayment(ORDER, "pay-1", 500, captured=False),
            RecordPayment(ORDER, "pay-1", 500, method="card"),
        ],
    )
    def test_the_same_reference_with_other_values_is_refused(self, other: RecordPayment) -> None:
        past = given(*PENDING, PaymentReceived("pay-1", 500))
        past.when(other).then_refused(PaymentAlreadyRecorded, payment_reference="pay-1")

    @pytest.mark.bound("command", "payments, refunds, shipments and returns of an order")
    def test_a_hundred_payments_are_recorded_and_not_one_more(self) -> None:
        payments = [PaymentReceived(f"pay-{number}", 1) for number in range(99)]
        last = given(*PENDING, *payments).when(RecordPayment(ORDER, "last", 1))
        after = last.then(PaymentReceived("last", 1))
        assert after is not None
        one_more = given(*PENDING, *payments, PaymentReceived("last", 1)).when(RecordPayment(ORDER, "more", 1))
        one_more.then_refused(TooManyEntries, of="payments", maximum=100)

    def test_at_once_is_what_is_due(self) -> None:
        part = given(*PENDING, PaymentReceived("pay-1", 1_000))
        whole, rest = (ConfirmPayment(ORDER, "pay-2", amount) for amount in (TOTAL, TOTAL - 1_000))
        part.when(whole).then_refused(PaymentAmountMismatch, expected=TOTAL - 1_000)
        part.when(rest).then(PaymentConfirmed("pay-2", TOTAL - 1_000))


class TestCapture:
    def test_of_all_that_is_authorised(self) -> None:
        after = given(*AUTHORISED).when(CapturePayment(ORDER, "pay-1")).then(PaymentCaptured("pay-1", TOTAL))
        assert money(after) == (TOTAL, TOTAL, 0, 0)

    def test_in_parts(self) -> None:
        part = PaymentCaptured("pay-1", 1_000)
        given(*AUTHORISED).when(CapturePayment(ORDER, "pay-1", 1_000)).then(part)
        given(*AUTHORISED, part).when(CapturePayment(ORDER, "pay-1", 1_000)).then(part)
        given(*AUTHORISED, part).when(CapturePayment(ORDER, "pay-1")).then(PaymentCaptured("pay-1", TOTAL - 1_000))

    def test_of_more_than_is_left_is_refused(self) -> None:
        part = PaymentCaptured("pay-1", 1_000)
        more = CapturePayment(ORDER, "pay-1", TOTAL - 999)
        refused = given(*AUTHORISED, part).when(more)
        refused.then_refused(CaptureExceedsAuthorisation, available=TOTAL - 1_000, given=TOTAL - 999)

    def test_of_all_again_changes_nothing(self) -> None:
        past = given(*AUTHORISED, PaymentCaptured("pay-1", TOTAL))
        past.when(CapturePayment(ORDER, "pay-1")).then_nothing_changes()

    def test_of_what_was_voided_is_refused(self) -> None:
        past = given(*AUTHORISED, PaymentVoided("pay-1", TOTAL))
        past.when(CapturePayment(ORDER, "pay-1")).then_refused(CaptureExceedsAuthorisation, available=0)

    def test_for_a_cancelled_order_is_owed_back(self) -> None:
        past = given(*AUTHORISED, cancelled())
        after = past.when(CapturePayment(ORDER, "pay-1")).then(PaymentCaptured("pay-1", TOTAL))
        assert money(after) == (0, TOTAL, 0, TOTAL)

    def test_of_another_payment_is_not_found(self) -> None:
        given(*AUTHORISED).when(CapturePayment(ORDER, "pay-2")).then_refused(PaymentNotFound)


class TestVoid:
    def test_gives_up_what_was_not_captured(self) -> None:
        past = given(*AUTHORISED, PaymentCaptured("pay-1", 1_000))
        after = past.when(VoidPayment(ORDER, "pay-1", "sold out")).then(
            PaymentVoided("pay-1", TOTAL - 1_000, "sold out")
        )
        assert money(after) == (TOTAL, 1_000, TOTAL - 1_000, 0)

    def test_again_changes_nothing(self) -> None:
        past = given(*AUTHORISED, PaymentVoided("pay-1", TOTAL))
        past.when(VoidPayment(ORDER, "pay-1")).then_nothing_changes()

    @pytest.mark.parametrize("past", [CONFIRMED, (*AUTHORISED, PaymentCaptured("pay-1", TOTAL))])
    def test_of_what_was_captured_is_refused(self, past: tuple[OrderEvent, ...]) -> None:
        given(*past).when(VoidPayment(ORDER, "pay-1")).then_refused(NothingToVoid)

    def test_of_another_payment_is_not_found(self) -> None:
        given(*AUTHORISED).when(VoidPayment(ORDER, "pay-2")).then_refused(PaymentNotFound)

    def test_leaves_an_order_that_is_shipped_only_when_it_is_paid_again(self) -> None:
        ship = ShipOrder(ORDER, "track-1")
        voided = (*AUTHORISED, PaymentVoided("pay-1", TOTAL))
        given(*voided).when(ship).then_refused(OrderNotPaid, missing=TOTAL)
        given(*voided, PaymentReceived("pay-2", TOTAL)).when(ship).then(OrderShipped("track-1"))


class TestRefund:
    def test_settles_what_is_owed_back(self) -> None:
        refund = RefundPayment(ORDER, "r-1", "pay-1", TOTAL, "cancelled")
        past = given(*CONFIRMED, cancelled(TOTAL))
        after = past.when(refund).then(PaymentRefunded("r-1", "pay-1", TOTAL, "cancelled"))
        assert money(after) == (0, 0, 0, 0)

    def test_of_what_is_not_owed_lowers_what_the_order_costs(self) -> None:
        refund = RefundPayment(ORDER, "r-1", "pay-1", 500, "late")
        past = given(*CONFIRMED, shipped())
        after = past.when(refund).then(PaymentRefunded("r-1", "pay-1", 500, "late", 500))
        assert money(after) == (TOTAL - 500, TOTAL - 500, 0, 0)

    def test_settles_first_and_lowers_then(self) -> None:
        refund = RefundPayment(ORDER, "r-1", "pay-1", 500, "late")
        past = given(*CONFIRMED, PaymentReceived("pay-2", 300))
        after = past.when(refund).then(PaymentRefunded("r-1", "pay-1", 500, "late", 200))
        assert money(after) == (TOTAL - 200, TOTAL - 200, 0, 0)

    def test_of_a_pending_order_is_due_again(self) -> None:
        refund = RefundPayment(ORDER, "r-1", "pay-1", 500, "wrong card")
        past = given(*PENDING, PaymentReceived("pay-1", 500))
        after = past.when(refund).then(PaymentRefunded("r-1", "pay-1", 500, "wrong card"))
        assert money(after) == (TOTAL, 0, TOTAL, 0)

    def test_in_parts_up_to_what_was_captured(self) -> None:
        part = PaymentRefunded("r-1", "pay-1", 1_000, "late", 1_000)
        rest, over = (RefundPayment(ORDER, "r-2", "pay-1", TOTAL - 1_000 + more, "late") for more in (0, 1))
        given(*CONFIRMED, part).when(rest).then(PaymentRefunded("r-2", "pay-1", TOTAL - 1_000, "late", TOTAL - 1_000))
        given(*CONFIRMED, part).when(over).then_refused(RefundExceedsPayment, available=TOTAL - 1_000)

    def test_of_what_is_only_authorised_is_refused(self) -> None:
        refund = RefundPayment(ORDER, "r-1", "pay-1", 1, "late")
        given(*AUTHORISED).when(refund).then_refused(RefundExceedsPayment, available=0)

    def test_is_of_one_payment(self) -> None:
        """Another payment of the order does not pay for it."""
        past = given(*CONFIRMED, PaymentReceived("pay-2", 300))
        past.when(RefundPayment(ORDER, "r-1", "pay-2", 301, "late")).then_refused(RefundExceedsPayment, available=300)

    def test_the_same_again_changes_nothing(self) -> None:
        past = given(*CONFIRMED, PaymentRefunded("r-1", "pay-1", 500, "late", 500))
        past.when(RefundPayment(ORDER, "r-1", "pay-1", 500, "late")).then_nothing_changes()

    def test_the_same_id_with_other_values_is_refused(self) -> None:
        past = given(*CONFIRMED, PaymentRefunded("r-1", "pay-1", 500, "late", 500))
        past.when(RefundPayment(ORDER, "r-1", "pay-1", 501, "late")).then_refused(RefundAlreadyRecorded)

    def test_of_another_payment_is_not_found(self) -> None:
        given(*CONFIRMED).when(RefundPayment(ORDER, "r-1", "pay-2", 1, "late")).then_refused(PaymentNotFound)

    @pytest.mark.bound("command", "payments, refunds, shipments and returns of an order")
    def test_a_hundred_refunds_are_recorded_and_not_one_more(self) -> None:
        refunds = [PaymentRefunded(f"r-{number}", "pay-1", 1, "late", 1) for number in range(100)]
        more = RefundPayment(ORDER, "more", "pay-1", 1, "late")
        given(*CONFIRMED, *refunds[:99]).when(more).then(PaymentRefunded("more", "pay-1", 1, "late", 1))
        given(*CONFIRMED, *refunds).when(more).then_refused(TooManyEntries, of="refunds", maximum=100)

    def test_of_a_part_before_the_cancellation_is_not_owed_once_more(self) -> None:
        part = PaymentRefunded("r-1", "pay-1", 500, "late", 500)
        state = fold(*CONFIRMED, part, OrderCancelled("changed my mind", TOTAL - 500))
        assert money(state) == (0, TOTAL - 500, 0, TOTAL - 500)


class TestReferences:
    OWN, REFERENCE = "order-42", payment_stream("pay-2")
    RECORD = RecordPayment(ORDER, "pay-2", 500)

    def test_belong_to_the_first_order_that_records_them(self) -> None:
        states = {self.OWN: fold(*PENDING), self.REFERENCE: None}
        assert ORDERS.streams(self.RECORD) == (self.REFERENCE,)
        assert ORDERS.decide_over(self.RECORD, states, NOW) == {
            self.OWN: [PaymentReceived("pay-2", 500)],
            self.REFERENCE: [PaymentReferenceAssigned("pay-2", ORDER)],
        }

    @pytest.mark.parametrize("command", [RECORD, ConfirmPayment(ORDER, "pay-2", TOTAL)])
    def test_of_another_order_are_refused(self, command: RecordPayment | ConfirmPayment) -> None:
        states = {self.OWN: fold(*PENDING), self.REFERENCE: Payment("pay-2", "43")}
        with pytest.raises(PaymentReferenceInUse):
            ORDERS.decide_over(command, states, NOW)

    def test_of_the_order_itself_stay(self) -> None:
        states = {self.OWN: fold(*PENDING), self.REFERENCE: Payment("pay-2", ORDER)}
        assert ORDERS.decide_over(self.RECORD, states, NOW) == {self.OWN: [PaymentReceived("pay-2", 500)]}

    def test_of_any_letters_have_a_stream_of_their_own(self) -> None:
        streams = [payment_stream(reference) for reference in ("pay-1", "pay 1", "Grüße", "x" * 100, "x" * 64)]
        assert len(set(streams)) == len(streams)
        assert all(stream.isascii() and len(stream) <= 200 for stream in streams)
