"""Every rule of the order, both ways: pure, no server."""

from __future__ import annotations

import msgspec
import pytest
from msgspec.structs import replace

from command_service.domain.order import (
    MAX_BYTES,
    MAX_LINES,
    MAX_TOTAL,
    AddOrderItem,
    CancelOrder,
    ChangeShippingAddress,
    ConfirmDelivery,
    ConfirmPayment,
    ItemNotFound,
    OrderAlreadyPlaced,
    OrderCommand,
    OrderNeedsALine,
    OrderNotCancellable,
    OrderNotConfirmed,
    OrderNotFound,
    OrderNotPending,
    OrderNotShipped,
    OrderTooLarge,
    OrderTotalTooLarge,
    PaymentAmountMismatch,
    PlaceOrder,
    RemoveOrderItem,
    ShipOrder,
    TooManyLines,
)
from shared.aggregates.order import (
    Order,
    OrderCancelled,
    OrderDelivered,
    OrderEvent,
    OrderItemAdded,
    OrderItemRemoved,
    OrderLine,
    OrderShipped,
    OrderStatus,
    PaymentConfirmed,
    ShippingAddressChanged,
)
from shared.errors import OrdersError
from tests.given_when_then import fold, given
from tests.orders import LAMP, MUG, TOTAL, cancelled, delivered, paid, placed, shipped

ORDER = "42"
PENNY = OrderLine("PENNY", 1, 1)

PENDING: tuple[OrderEvent, ...] = (placed(),)
CONFIRMED = (*PENDING, paid())
SHIPPED = (*CONFIRMED, shipped())
DELIVERED = (*SHIPPED, delivered())
CANCELLED = (*PENDING, cancelled())
CANCELLED_AFTER_PAYMENT = (*CONFIRMED, cancelled(TOTAL))
PASTS = {
    "PENDING": PENDING,
    "CONFIRMED": CONFIRMED,
    "SHIPPED": SHIPPED,
    "DELIVERED": DELIVERED,
    "CANCELLED": CANCELLED,
    "CANCELLED after payment": CANCELLED_AFTER_PAYMENT,
}

PLACE = PlaceOrder(ORDER, "alice", "GBP", (MUG, LAMP), "home")
ADD = AddOrderItem(ORDER, PENNY)
REMOVE = RemoveOrderItem(ORDER, "MUG")
MOVE = ChangeShippingAddress(ORDER, "office")
PAY = ConfirmPayment(ORDER, "pay-2", TOTAL)
SHIP = ShipOrder(ORDER, "track-2", "DHL")
DELIVER = ConfirmDelivery(ORDER)
CANCEL = CancelOrder(ORDER, "changed my mind")

ACCEPTED: dict[tuple[str, OrderCommand], list[OrderEvent]] = {
    ("PENDING", ADD): [OrderItemAdded(PENNY)],
    ("PENDING", REMOVE): [OrderItemRemoved("MUG")],
    ("PENDING", MOVE): [ShippingAddressChanged("office")],
    ("PENDING", PAY): [PaymentConfirmed("pay-2", TOTAL)],
    ("PENDING", CANCEL): [OrderCancelled("changed my mind", 0)],
    ("CONFIRMED", SHIP): [OrderShipped("track-2", "DHL")],
    ("CONFIRMED", CANCEL): [OrderCancelled("changed my mind", TOTAL)],
    ("SHIPPED", DELIVER): [OrderDelivered()],
    ("DELIVERED", DELIVER): [],
}
REFUSAL: dict[OrderCommand, type[OrdersError]] = {
    PLACE: OrderAlreadyPlaced,
    ADD: OrderNotPending,
    REMOVE: OrderNotPending,
    MOVE: OrderNotPending,
    PAY: OrderNotPending,
    SHIP: OrderNotConfirmed,
    DELIVER: OrderNotShipped,
    CANCEL: OrderNotCancellable,
}


@pytest.mark.parametrize("command", REFUSAL, ids=lambda command: type(command).__name__)
@pytest.mark.parametrize("past", PASTS)
def test_a_command_is_accepted_in_its_status_and_refused_in_every_other(past: str, command: OrderCommand) -> None:
    decision = given(*PASTS[past]).when(command)
    expected = ACCEPTED.get((past, command))
    if expected is not None:
        decision.then(*expected)
    elif command == PLACE:
        decision.then_refused(OrderAlreadyPlaced, order_id=ORDER)
    else:
        decision.then_refused(REFUSAL[command], order_id=ORDER, order_status=past.split(maxsplit=1)[0])


@pytest.mark.parametrize("command", [ADD, REMOVE, MOVE, PAY, SHIP, DELIVER, CANCEL], ids=lambda c: type(c).__name__)
def test_an_order_that_was_never_placed_is_not_found(command: OrderCommand) -> None:
    given().when(command).then_refused(OrderNotFound, order_id=ORDER)


class TestPlacing:
    def test_says_who_what_and_where(self) -> None:
        after = given().when(PLACE).then(placed())
        assert after == Order(OrderStatus.PENDING, "alice", "GBP", (MUG, LAMP), "home")

    def test_needs_a_line(self) -> None:
        empty = PlaceOrder(ORDER, "alice", "GBP", (), "home")
        given().when(empty).then_refused(OrderNeedsALine, order_id=ORDER)

    def test_of_two_thousand_lines_works(self) -> None:
        lines = (PENNY,) * MAX_LINES
        given().when(PlaceOrder(ORDER, "alice", "GBP", lines, "home")).then(placed(*lines))

    def test_of_one_line_more_is_refused(self) -> None:
        lines = (PENNY,) * 2_001
        given().when(PlaceOrder(ORDER, "alice", "GBP", lines, "home")).then_refused(TooManyLines, maximum=2_000)

    def test_for_the_largest_total_works(self) -> None:
        lines = (OrderLine("GOLD", 1, 2**53 - 1),)
        given().when(PlaceOrder(ORDER, "alice", "GBP", lines, "home")).then(placed(*lines))

    def test_for_one_penny_more_is_refused(self) -> None:
        lines = (OrderLine("GOLD", 1, 2**53 - 1), PENNY)
        place = PlaceOrder(ORDER, "alice", "GBP", lines, "home")
        given().when(place).then_refused(OrderTotalTooLarge, total=2**53, maximum=2**53 - 1)

    def test_of_something_free_works(self) -> None:
        free = (OrderLine("GIFT", 3, 0),)
        given().when(PlaceOrder(ORDER, "alice", "GBP", free, "home")).then(placed(*free))


class TestLines:
    def test_the_total_is_the_sum_of_quantity_times_price(self) -> None:
        state = fold(placed(), OrderItemAdded(OrderLine("PEN", 3, 120)))
        assert state is not None
        assert state.total == 2 * 450 + 1 * 2_599 + 3 * 120

    def test_a_product_may_stand_on_several_lines(self) -> None:
        after = given(placed()).when(AddOrderItem(ORDER, MUG)).then(OrderItemAdded(MUG))
        assert after is not None
        assert after.items == (MUG, LAMP, MUG)

    def test_removing_a_product_takes_every_line_of_it(self) -> None:
        after = given(placed(MUG, LAMP, MUG)).when(REMOVE).then(OrderItemRemoved("MUG"))
        assert after is not None
        assert [line.product_id for line in after.items] == ["LAMP"]

    def test_the_last_product_stays_even_on_several_lines(self) -> None:
        given(placed(MUG, MUG)).when(REMOVE).then_refused(OrderNeedsALine, order_id=ORDER, product_id="MUG")

    def test_a_product_that_is_not_there_cannot_be_removed(self) -> None:
        remove = RemoveOrderItem(ORDER, "mug")
        given(placed()).when(remove).then_refused(ItemNotFound, order_id=ORDER, product_id="mug")

    def test_the_line_that_makes_two_thousand_is_added(self) -> None:
        given(placed(*[PENNY] * 1_999)).when(ADD).then(OrderItemAdded(PENNY))

    def test_the_line_after_two_thousand_is_refused(self) -> None:
        given(placed(*[PENNY] * 2_000)).when(ADD).then_refused(TooManyLines, maximum=2_000)

    def test_a_line_may_bring_the_total_to_its_bound(self) -> None:
        given(placed(OrderLine("GOLD", 1, MAX_TOTAL - 1))).when(ADD).then(OrderItemAdded(PENNY))

    def test_a_line_may_not_bring_the_total_over_its_bound(self) -> None:
        given(placed(OrderLine("GOLD", 1, MAX_TOTAL))).when(ADD).then_refused(OrderTotalTooLarge, total=2**53)

    @pytest.mark.bound("command", "lines and charges of an order")
    def test_lines_may_take_640_kib_and_not_a_byte_more(self) -> None:
        lines = [OrderLine("LONG", 1, 1, "é" * 500)] * 600
        left = MAX_BYTES - len(msgspec.json.encode([*lines, OrderLine("LAST", 1, 1, "")]))
        fits, over = OrderLine("LAST", 1, 1, "x" * left), OrderLine("LAST", 1, 1, "x" * (left + 1))
        given(placed(*lines)).when(AddOrderItem(ORDER, fits)).then(OrderItemAdded(fits))
        given(placed(*lines)).when(AddOrderItem(ORDER, over)).then_refused(OrderTooLarge, maximum=MAX_BYTES)

    def test_lines_can_be_added_again_once_some_were_removed(self) -> None:
        full = placed(MUG, *[PENNY] * 1_999)
        added = OrderItemAdded(replace(PENNY, line_id="2001"))
        given(full, OrderItemRemoved("PENNY")).when(ADD).then(added)


class TestAddress:
    def test_the_reason_is_kept(self) -> None:
        move = ChangeShippingAddress(ORDER, "office", "moved house")
        after = given(placed()).when(move).then(ShippingAddressChanged("office", "moved house"))
        assert after is not None
        assert after.shipping_address_id == "office"

    def test_the_address_it_already_has_changes_nothing(self) -> None:
        given(placed()).when(ChangeShippingAddress(ORDER, "home", "again")).then_nothing_changes()

    def test_the_address_it_has_is_still_refused_once_paid(self) -> None:
        given(*CONFIRMED).when(ChangeShippingAddress(ORDER, "home")).then_refused(
            OrderNotPending, order_status="CONFIRMED"
        )


class TestPayment:
    @pytest.mark.parametrize("amount", [TOTAL - 1, TOTAL + 1, 0])
    def test_must_equal_the_total(self, amount: int) -> None:
        pay = ConfirmPayment(ORDER, "pay-2", amount)
        given(placed()).when(pay).then_refused(PaymentAmountMismatch, expected=TOTAL, given=amount)

    def test_follows_the_lines_as_they_are_now(self) -> None:
        pay = ConfirmPayment(ORDER, "pay-2", LAMP.unit_price)
        given(placed(), OrderItemRemoved("MUG")).when(pay).then(PaymentConfirmed("pay-2", LAMP.unit_price))

    def test_of_nothing_confirms_an_order_of_gifts(self) -> None:
        gifts = placed(OrderLine("GIFT", 3, 0))
        after = given(gifts).when(ConfirmPayment(ORDER, "pay-2", 0)).then(PaymentConfirmed("pay-2", 0))
        assert after is not None
        assert after.status is OrderStatus.CONFIRMED

    @pytest.mark.parametrize("past", [CONFIRMED, SHIPPED, DELIVERED])
    def test_of_the_same_again_changes_nothing(self, past: tuple[OrderEvent, ...]) -> None:
        given(*past).when(ConfirmPayment(ORDER, "pay-1", TOTAL)).then_nothing_changes()

    def test_of_the_same_again_is_refused_once_cancelled(self) -> None:
        again = ConfirmPayment(ORDER, "pay-1", TOTAL)
        given(*CANCELLED_AFTER_PAYMENT).when(again).then_refused(OrderNotPending, order_status="CANCELLED")


class TestShipment:
    @pytest.mark.parametrize("past", [SHIPPED, DELIVERED])
    def test_of_the_same_again_changes_nothing(self, past: tuple[OrderEvent, ...]) -> None:
        given(*past).when(ShipOrder(ORDER, "track-1", "Royal Mail")).then_nothing_changes()

    def test_by_another_carrier_is_another_shipment(self) -> None:
        given(*SHIPPED).when(ShipOrder(ORDER, "track-1")).then_refused(OrderNotConfirmed, order_status="SHIPPED")


class TestCancellation:
    def test_owes_back_what_was_paid(self) -> None:
        after = given(*CONFIRMED).when(CANCEL).then(OrderCancelled("changed my mind", TOTAL))
        assert after is not None
        assert after.status is OrderStatus.CANCELLED

    @pytest.mark.parametrize("past", [CANCELLED, CANCELLED_AFTER_PAYMENT])
    def test_for_the_same_reason_again_changes_nothing(self, past: tuple[OrderEvent, ...]) -> None:
        given(*past).when(CancelOrder(ORDER, "ordered twice")).then_nothing_changes()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (OrderNotFound("42"), "order-not-found: Order 42 has not been placed."),
        (OrderNotPending("42", "SHIPPED"), "order-not-pending: Order 42 is SHIPPED; only a PENDING order can be"),
        (OrderNotConfirmed("42", "PENDING"), "order-not-confirmed: Order 42 is PENDING; only a CONFIRMED"),
        (OrderNotShipped("42", "PENDING"), "order-not-shipped: Order 42 is PENDING; only a SHIPPED order can be"),
        (OrderNotCancellable("42", "SHIPPED"), "order-not-cancellable: Order 42 is SHIPPED; only a PENDING or"),
        (
            PaymentAmountMismatch("42", 10, 9, "GBP", 2),
            "payment-amount-mismatch: Of order 42 10 is due, the payment",
        ),
        (OrderNeedsALine("42", "MUG"), "order-needs-a-line: Order 42 would be left without a line"),
        (ItemNotFound("42", "MUG"), "item-not-found: Order 42 has no line of product MUG."),
        (TooManyLines("42", 2000), "too-many-lines: Order 42 may have at most 2000 lines."),
        (OrderTooLarge("42", 9), "order-too-large: The lines and charges of order 42 may take at most 9 bytes."),
    ],
)
def test_a_refusal_says_in_a_sentence_what_is_wrong(error: OrdersError, sentence: str) -> None:
    assert str(error).startswith(sentence)
