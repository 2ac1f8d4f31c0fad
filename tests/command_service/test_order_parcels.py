"""Every rule of shipments, deliveries, returns and holds, both ways: pure, no server."""

from __future__ import annotations

import pytest

from command_service.domain.order import (
    CancelOrder,
    ConfirmDelivery,
    ConfirmShipmentDelivery,
    HoldOrder,
    LineNotFound,
    OrderCommand,
    OrderNotConfirmed,
    OrderNotHoldable,
    OrderNotShipped,
    OrderOnHold,
    OrderPartlyShipped,
    ReceiptExceedsReturn,
    ReceiveReturn,
    ReleaseHold,
    RequestReturn,
    ReturnAlreadyRequested,
    ReturnExceedsShipment,
    ReturnNotFound,
    ShipItems,
    ShipmentAlreadyRecorded,
    ShipmentExceedsOrder,
    ShipmentNotFound,
    ShipOrder,
    TooManyEntries,
    decide,
)
from shared.aggregates.order import (
    Charge,
    ChargeKind,
    ItemsShipped,
    LineQuantity,
    OrderCancelled,
    OrderDelivered,
    OrderEvent,
    OrderHeld,
    OrderHoldReleased,
    OrderLine,
    OrderPlaced,
    OrderShipped,
    OrderStatus,
    PaymentRefunded,
    ReceivedLine,
    ReturnReceived,
    ReturnRequested,
    ShipmentDelivered,
)
from tests.given_when_then import fold, given
from tests.orders import TOTAL, cancelled, delivered, paid, placed, shipped

ORDER = "42"
MUGS, ONE_MUG, LAMPS = LineQuantity("1", 2), LineQuantity("1", 1), LineQuantity("2", 1)
PENDING: tuple[OrderEvent, ...] = (placed(),)
CONFIRMED = (*PENDING, paid())
PART = ItemsShipped("p-1", "track-1", (ONE_MUG,))
PARTLY_SHIPPED = (*CONFIRMED, PART)
SHIPPED = (*CONFIRMED, shipped())
REQUESTED = (*SHIPPED, ReturnRequested("back", (MUGS,), "broken"))


def ship(*lines: LineQuantity, shipment_id: str = "p-1", tracking_number: str = "track-1") -> ShipItems:
    return ShipItems(ORDER, shipment_id, tracking_number, None, lines)


def receive(*lines: tuple[str, int, bool]) -> ReceiveReturn:
    return ReceiveReturn(ORDER, "back", tuple(ReceivedLine(*line) for line in lines))


class TestShipments:
    def test_of_a_part_leave_the_order_confirmed(self) -> None:
        after = given(*CONFIRMED).when(ship(ONE_MUG)).then(PART)
        assert after is not None
        assert (after.status, after.left_to_ship()) == (OrderStatus.CONFIRMED, {"1": 1, "2": 1})

    def test_of_the_rest_ship_the_order(self) -> None:
        rest = ship(LAMPS, ONE_MUG, shipment_id="p-2")
        after = given(*PARTLY_SHIPPED).when(rest).then(OrderShipped("track-1", None, "p-2"))
        assert after is not None
        assert (after.status, after.left_to_ship()) == (OrderStatus.SHIPPED, {})

    def test_of_all_that_is_left_need_no_lines(self) -> None:
        after = given(*PARTLY_SHIPPED).when(ShipOrder(ORDER, "track-2")).then(OrderShipped("track-2"))
        assert after is not None
        assert after.shipments[1].lines == (ONE_MUG, LAMPS)
        assert after.shipments[1].shipment_id == "2"

    def test_name_a_line_twice_for_its_sum(self) -> None:
        given(*CONFIRMED).when(ship(ONE_MUG, ONE_MUG)).then(ItemsShipped("p-1", "track-1", (MUGS,)))

    def test_of_more_than_is_left_are_refused(self) -> None:
        over = ship(MUGS, shipment_id="p-2")
        given(*PARTLY_SHIPPED).when(over).then_refused(ShipmentExceedsOrder, line_id="1", available=1, given=2)

    def test_of_a_line_that_is_not_there_are_refused(self) -> None:
        given(*CONFIRMED).when(ship(LineQuantity("9", 1))).then_refused(LineNotFound, line_id="9")

    def test_again_change_nothing(self) -> None:
        given(*PARTLY_SHIPPED).when(ship(ONE_MUG)).then_nothing_changes()

    def test_with_an_id_that_is_taken_are_refused(self) -> None:
        given(*PARTLY_SHIPPED).when(ship(LAMPS)).then_refused(ShipmentAlreadyRecorded, shipment_id="p-1")

    @pytest.mark.parametrize(
        ("past", "status"), [(PENDING, "PENDING"), (SHIPPED, "SHIPPED"), ((*CONFIRMED, cancelled(TOTAL)), "CANCELLED")]
    )
    def test_need_a_confirmed_order(self, past: tuple[OrderEvent, ...], status: str) -> None:
        given(*past).when(ship(ONE_MUG)).then_refused(OrderNotConfirmed, order_status=status)

    @pytest.mark.bound("command", "payments, refunds, shipments and returns of an order")
    def test_are_a_hundred_and_not_one_more(self) -> None:
        past: list[OrderEvent] = [placed(OrderLine("PENNY", 200, 1)), paid(200)]
        parts = [ItemsShipped(f"p-{number}", "t", (ONE_MUG,)) for number in range(100)]
        last, more = ship(ONE_MUG, shipment_id="last"), ship(ONE_MUG, shipment_id="more")
        given(*past, *parts[:99]).when(last).then(ItemsShipped("last", "track-1", (ONE_MUG,)))
        given(*past, *parts).when(more).then_refused(TooManyEntries, of="shipments", maximum=100)

    @pytest.mark.bound("command", "payments, refunds, shipments and returns of an order")
    def test_have_3_000_lines_and_not_one_more(self) -> None:
        lines = [OrderLine("PENNY", 2, 1)] * 2_000
        first = ItemsShipped("p-0", "t", tuple(LineQuantity(str(number), 1) for number in range(1, 2_001)))
        fits, over = (ship(*(LineQuantity(str(number), 1) for number in range(1, last + 1))) for last in (1_000, 1_001))
        past = given(placed(*lines), paid(4_000), first)
        past.when(fits).then(ItemsShipped("p-1", "track-1", fits.lines))
        past.when(over).then_refused(TooManyEntries, of="lines in shipments", maximum=3_000)


class TestDeliveries:
    def test_of_one_shipment_leave_the_order_as_it_is(self) -> None:
        deliver = ConfirmShipmentDelivery(ORDER, "p-1")
        after = given(*PARTLY_SHIPPED).when(deliver).then(ShipmentDelivered("p-1"))
        assert after is not None
        assert (after.status, after.shipments[0].delivered) == (OrderStatus.CONFIRMED, True)

    def test_of_the_last_shipment_deliver_the_order(self) -> None:
        past = (*PARTLY_SHIPPED, OrderShipped("track-2"))
        given(*past).when(ConfirmShipmentDelivery(ORDER, "2")).then(ShipmentDelivered("2"))
        deliver = ConfirmShipmentDelivery(ORDER, "p-1")
        after = given(*past, ShipmentDelivered("2")).when(deliver).then(OrderDelivered())
        assert after is not None
        assert after.status is OrderStatus.DELIVERED

    def test_of_the_whole_order_are_of_every_shipment(self) -> None:
        past = given(*PARTLY_SHIPPED, OrderShipped("track-2"))
        after = past.when(ConfirmDelivery(ORDER)).then(OrderDelivered())
        assert after is not None
        assert all(shipment.delivered for shipment in after.shipments)

    def test_of_the_whole_order_wait_for_what_is_left(self) -> None:
        given(*PARTLY_SHIPPED).when(ConfirmDelivery(ORDER)).then_refused(OrderNotShipped, order_status="CONFIRMED")

    def test_again_change_nothing(self) -> None:
        past = given(*PARTLY_SHIPPED, ShipmentDelivered("p-1"))
        past.when(ConfirmShipmentDelivery(ORDER, "p-1")).then_nothing_changes()
        given(*SHIPPED, delivered()).when(ConfirmShipmentDelivery(ORDER, "1")).then_nothing_changes()

    def test_of_another_shipment_are_not_found(self) -> None:
        given(*PARTLY_SHIPPED).when(ConfirmShipmentDelivery(ORDER, "p-2")).then_refused(ShipmentNotFound)


class TestReturns:
    def test_are_of_what_was_shipped(self) -> None:
        request = RequestReturn(ORDER, "back", (ONE_MUG,), "broken")
        given(*PARTLY_SHIPPED).when(request).then(ReturnRequested("back", (ONE_MUG,), "broken"))
        both = RequestReturn(ORDER, "back", (MUGS,), "broken")
        given(*PARTLY_SHIPPED).when(both).then_refused(ReturnExceedsShipment, line_id="1", available=1, given=2)
        given(*CONFIRMED).when(request).then_refused(ReturnExceedsShipment, available=0)

    def test_are_of_what_was_not_returned(self) -> None:
        more = RequestReturn(ORDER, "more", (ONE_MUG,), "broken")
        given(*REQUESTED).when(more).then_refused(ReturnExceedsShipment, available=0)

    def test_of_a_line_that_is_not_there_are_refused(self) -> None:
        request = RequestReturn(ORDER, "back", (LineQuantity("9", 1),), "broken")
        given(*SHIPPED).when(request).then_refused(LineNotFound, line_id="9")

    def test_again_change_nothing(self) -> None:
        given(*REQUESTED).when(RequestReturn(ORDER, "back", (MUGS,), "broken")).then_nothing_changes()

    def test_with_an_id_that_is_taken_are_refused(self) -> None:
        other = RequestReturn(ORDER, "back", (LAMPS,), "broken")
        given(*REQUESTED).when(other).then_refused(ReturnAlreadyRequested, return_id="back")

    @pytest.mark.bound("command", "payments, refunds, shipments and returns of an order")
    def test_are_a_hundred_and_not_one_more(self) -> None:
        past: list[OrderEvent] = [placed(OrderLine("PENNY", 200, 1)), paid(200), shipped()]
        requests = [ReturnRequested(f"r-{number}", (ONE_MUG,), "broken") for number in range(100)]
        more = RequestReturn(ORDER, "more", (ONE_MUG,), "broken")
        given(*past, *requests[:99]).when(more).then(ReturnRequested("more", (ONE_MUG,), "broken"))
        given(*past, *requests).when(more).then_refused(TooManyEntries, of="returns", maximum=100)

    def test_that_are_received_are_owed_back(self) -> None:
        received = ReturnReceived("back", (ReceivedLine("1", 2, restock=True),), 900)
        after = given(*REQUESTED).when(receive(("1", 2, True))).then(received)
        assert after is not None
        assert (after.payable, after.refund_due) == (TOTAL - 900, 900)

    def test_are_received_in_parts_restocked_or_written_off(self) -> None:
        first = ReturnReceived("back", (ReceivedLine("1", 1, restock=True),), 450)
        second = ReturnReceived("back", (ReceivedLine("1", 1, restock=False),), 450)
        given(*REQUESTED).when(receive(("1", 1, True))).then(first)
        given(*REQUESTED, first).when(receive(("1", 1, False))).then(second)
        given(*REQUESTED, first).when(receive(("1", 1, True))).then(first)

    def test_are_worth_what_was_charged_after_discounts(self) -> None:
        discount = Charge("1", ChargeKind.DISCOUNT, -100)
        three = OrderPlaced("alice", "GBP", (OrderLine("PEN", 3, 100),), "home", (discount,))
        requested = ReturnRequested("back", (LineQuantity("1", 3),), "broken")
        past: list[OrderEvent] = [three, paid(200), shipped(), requested]
        worth = []
        for _ in range(3):
            [received] = decide_all(receive(("1", 1, True)), past)
            assert isinstance(received, ReturnReceived)
            worth.append(received.price_reduction)
            past.append(received)
        assert worth == [66, 67, 67]

    def test_are_not_owed_twice_after_a_refund(self) -> None:
        refund = PaymentRefunded("r-1", "pay-1", TOTAL - 100, "sorry", TOTAL - 100)
        past = given(*REQUESTED, refund)
        after = past.when(receive(("1", 2, True))).then(
            ReturnReceived("back", (ReceivedLine("1", 2, restock=True),), 100)
        )
        assert after is not None
        assert (after.payable, after.refund_due) == (0, 100)

    def test_are_received_up_to_what_was_requested(self) -> None:
        over = receive(("1", 2, True), ("1", 1, False))
        given(*REQUESTED).when(over).then_refused(ReceiptExceedsReturn, line_id="1", available=2, given=3)

    def test_are_received_of_their_lines(self) -> None:
        given(*REQUESTED).when(receive(("2", 1, True))).then_refused(LineNotFound, line_id="2")

    def test_that_are_complete_change_nothing_again(self) -> None:
        complete = ReturnReceived("back", (ReceivedLine("1", 2, restock=True),), 900)
        given(*REQUESTED, complete).when(receive(("1", 2, True))).then_nothing_changes()
        given(*REQUESTED, complete).when(receive(("1", 1, True))).then_refused(ReceiptExceedsReturn, available=0)

    def test_of_another_id_are_not_found(self) -> None:
        given(*SHIPPED).when(receive(("1", 1, True))).then_refused(ReturnNotFound, return_id="back")


class TestHolds:
    HELD = OrderHeld("the address is checked")
    HOLD = HoldOrder(ORDER, "the address is checked")

    @pytest.mark.parametrize("command", [ShipOrder(ORDER, "t"), ship(ONE_MUG)], ids=lambda c: type(c).__name__)
    def test_stop_shipments_until_they_are_released(self, command: OrderCommand) -> None:
        given(*CONFIRMED, self.HELD).when(command).then_refused(OrderOnHold, reason="the address is checked")
        assert decide_all(command, [*CONFIRMED, self.HELD, OrderHoldReleased()])

    @pytest.mark.parametrize("past", [PENDING, CONFIRMED, PARTLY_SHIPPED])
    def test_are_of_what_has_not_left(self, past: tuple[OrderEvent, ...]) -> None:
        given(*past).when(self.HOLD).then(self.HELD)
        given(*past, self.HELD).when(self.HOLD).then_nothing_changes()
        given(*past, self.HELD).when(HoldOrder(ORDER, "fraud")).then(OrderHeld("fraud"))

    @pytest.mark.parametrize(("past", "status"), [(SHIPPED, "SHIPPED"), ((*PENDING, cancelled()), "CANCELLED")])
    def test_of_what_has_left_are_refused(self, past: tuple[OrderEvent, ...], status: str) -> None:
        given(*past).when(self.HOLD).then_refused(OrderNotHoldable, order_status=status)

    def test_are_released_once(self) -> None:
        after = given(*CONFIRMED, self.HELD).when(ReleaseHold(ORDER)).then(OrderHoldReleased())
        assert after is not None
        assert after.hold is None
        given(*CONFIRMED).when(ReleaseHold(ORDER)).then_nothing_changes()

    def test_end_with_the_cancellation(self) -> None:
        cancel = CancelOrder(ORDER, "fraud")
        after = given(*PENDING, self.HELD).when(cancel).then(OrderCancelled("fraud", 0))
        assert after is not None
        assert after.hold is None


def test_an_order_of_which_a_part_has_left_is_not_cancelled() -> None:
    given(*PARTLY_SHIPPED).when(CancelOrder(ORDER, "late")).then_refused(OrderPartlyShipped, shipments=1)


def decide_all(command: OrderCommand, past: list[OrderEvent]) -> list[OrderEvent]:
    return decide(command, fold(*past))
