"""Every rule of lines, charges and the address, both ways: pure, no server."""

from __future__ import annotations

import pytest

from command_service.domain.order import (
    MAX_CHARGES,
    AddOrderItem,
    ChangeLineQuantity,
    ChangeShippingAddress,
    ChargeOfUnknownLine,
    DuplicateChargeId,
    DuplicateLineId,
    LineNotFound,
    NegativeAmount,
    OrderCommand,
    OrderNeedsALine,
    OrderNotPending,
    OrderTotalTooLarge,
    PlaceOrder,
    RemoveOrderItem,
    TooManyEntries,
)
from shared.aggregates.address import Address
from shared.aggregates.order import (
    Charge,
    ChargeKind,
    OrderConfirmed,
    OrderItemAdded,
    OrderItemRemoved,
    OrderLine,
    OrderLineQuantityChanged,
    OrderPlaced,
    PaymentReceived,
    ShippingAddressChanged,
)
from shared.aggregates.order.lines import allocate, charged_amounts
from tests.given_when_then import fold, given
from tests.orders import LAMP, MUG, TOTAL, paid, placed

ORDER = "42"
FREIGHT = Charge("1", ChargeKind.SHIPPING, 500)
NAMED = OrderLine("PEN", 1, 120, line_id="pen")


def place(*items: OrderLine, charges: tuple[Charge, ...] = ()) -> PlaceOrder:
    return PlaceOrder(ORDER, "alice", "GBP", items, "home", charges)


def with_charges(*charges: Charge) -> OrderPlaced:
    return OrderPlaced("alice", "GBP", (MUG, LAMP), "home", charges)


def ids(*events: OrderPlaced | OrderItemAdded | OrderItemRemoved | OrderLineQuantityChanged) -> list[str]:
    state = fold(*events)
    assert state is not None
    return [*state.lines]


class TestLineIds:
    def test_are_the_numbers_of_the_lines(self) -> None:
        assert ids(placed(MUG, LAMP, MUG)) == ["1", "2", "3"]

    def test_are_the_given_ones(self) -> None:
        assert ids(placed(MUG, NAMED)) == ["1", "pen"]

    def test_pass_over_a_number_that_is_given_to_another_line(self) -> None:
        two = OrderLine("PEN", 1, 120, line_id="2")
        assert ids(placed(two, MUG, LAMP)) == ["2", "3", "4"]

    def test_are_not_given_a_second_time(self) -> None:
        past = given(placed(MUG, LAMP), OrderItemAdded(MUG), OrderItemRemoved("LAMP"))
        after = past.when(AddOrderItem(ORDER, OrderLine("PEN", 1, 1))).then(
            OrderItemAdded(OrderLine("PEN", 1, 1, line_id="4"))
        )
        assert after is not None
        assert [*after.lines] == ["1", "3", "4"]

    def test_that_an_old_log_does_not_name_are_numbers_that_are_free(self) -> None:
        """It was written before there were ids."""
        assert ids(placed(MUG, LAMP), OrderItemRemoved("MUG"), OrderItemAdded(MUG)) == ["2", "3"]

    def test_of_two_lines_differ(self) -> None:
        given().when(place(NAMED, NAMED)).then_refused(DuplicateLineId, line_id="pen")

    def test_of_a_line_that_is_added_differs(self) -> None:
        one = OrderLine("PEN", 1, 120, line_id="1")
        given(placed()).when(AddOrderItem(ORDER, one)).then_refused(DuplicateLineId, line_id="1")
        given(placed()).when(AddOrderItem(ORDER, NAMED)).then(OrderItemAdded(NAMED))


class TestQuantity:
    def test_changes_the_total(self) -> None:
        change = ChangeLineQuantity(ORDER, "1", 5)
        after = given(placed()).when(change).then(OrderLineQuantityChanged("1", "MUG", 5, 2, 3 * 450))
        assert after is not None
        assert after.total == TOTAL + 3 * 450

    def test_0_takes_the_line_off(self) -> None:
        change = ChangeLineQuantity(ORDER, "1", 0)
        after = given(placed()).when(change).then(OrderLineQuantityChanged("1", "MUG", 0, 2, -900))
        assert after is not None
        assert [*after.lines] == ["2"]

    def test_that_it_has_changes_nothing(self) -> None:
        given(placed()).when(ChangeLineQuantity(ORDER, "1", 2)).then_nothing_changes()

    def test_0_of_the_last_line_is_refused(self) -> None:
        given(placed(MUG)).when(ChangeLineQuantity(ORDER, "1", 0)).then_refused(OrderNeedsALine, product_id="MUG")

    def test_of_a_line_that_is_not_there_is_refused(self) -> None:
        given(placed()).when(ChangeLineQuantity(ORDER, "3", 1)).then_refused(LineNotFound, line_id="3")

    def test_of_a_confirmed_order_is_refused(self) -> None:
        change = ChangeLineQuantity(ORDER, "1", 1)
        given(placed(), paid()).when(change).then_refused(OrderNotPending, order_status="CONFIRMED")

    def test_may_not_bring_the_total_over_its_bound(self) -> None:
        gold = placed(OrderLine("GOLD", 1, 2**52))
        given(gold).when(ChangeLineQuantity(ORDER, "1", 2)).then_refused(OrderTotalTooLarge, total=2**53)

    def test_that_is_paid_for_confirms_the_order(self) -> None:
        part = PaymentReceived("pay-1", LAMP.unit_price)
        change = ChangeLineQuantity(ORDER, "1", 0)
        given(placed(), part).when(change).then(OrderLineQuantityChanged("1", "MUG", 0, 2, -900), OrderConfirmed())

    def test_of_a_product_that_is_taken_off_may_confirm_the_order_too(self) -> None:
        part = PaymentReceived("pay-1", LAMP.unit_price)
        remove = RemoveOrderItem(ORDER, "MUG")
        given(placed(), part).when(remove).then(OrderItemRemoved("MUG"), OrderConfirmed())
        less = PaymentReceived("pay-1", LAMP.unit_price - 1)
        given(placed(), less).when(remove).then(OrderItemRemoved("MUG"))


class TestCharges:
    def test_are_part_of_the_total(self) -> None:
        discount = Charge("", ChargeKind.DISCOUNT, -100, "WELCOME")
        after = (
            given()
            .when(place(MUG, LAMP, charges=(FREIGHT, discount)))
            .then(with_charges(FREIGHT, Charge("2", ChargeKind.DISCOUNT, -100, "WELCOME")))
        )
        assert after is not None
        assert after.total == TOTAL + 500 - 100

    def test_may_not_have_one_id(self) -> None:
        given().when(place(MUG, charges=(FREIGHT, FREIGHT))).then_refused(DuplicateChargeId, charge_id="1")

    @pytest.mark.bound("command", "lines and charges of an order")
    def test_may_be_2_000_and_not_one_more(self) -> None:
        charge = Charge("", ChargeKind.FEE, 1)
        after = fold(OrderPlaced("alice", "GBP", (MUG,), "home"))
        assert after is not None
        given().when(place(MUG, charges=(charge,) * (MAX_CHARGES + 1))).then_refused(TooManyEntries, of="charges")
        numbered = tuple(Charge(str(number), ChargeKind.FEE, 1) for number in range(1, MAX_CHARGES + 1))
        given().when(place(MUG, charges=(charge,) * MAX_CHARGES)).then(
            OrderPlaced("alice", "GBP", (MUG,), "home", numbered)
        )

    def test_of_a_line_name_one_of_the_order(self) -> None:
        of_two = Charge("1", ChargeKind.TAX, 1, None, "2")
        given().when(place(MUG, charges=(of_two,))).then_refused(ChargeOfUnknownLine, line_id="2")
        given().when(place(MUG, LAMP, charges=(of_two,))).then(with_charges(of_two))

    def test_leave_with_their_line(self) -> None:
        tax = Charge("2", ChargeKind.TAX, 60, None, "1")
        past = given(with_charges(FREIGHT, tax))
        after = past.when(ChangeLineQuantity(ORDER, "1", 0)).then(OrderLineQuantityChanged("1", "MUG", 0, 2, -900 - 60))
        assert after is not None
        assert after.charges == (FREIGHT,)
        after = past.when(RemoveOrderItem(ORDER, "MUG")).then(OrderItemRemoved("MUG"))
        assert after is not None
        assert after.charges == (FREIGHT,)

    def test_may_bring_an_order_to_0_and_not_below(self) -> None:
        free, over = (Charge("1", ChargeKind.DISCOUNT, -TOTAL - more) for more in (0, 1))
        given().when(place(MUG, LAMP, charges=(free,))).then(with_charges(free))
        given().when(place(MUG, LAMP, charges=(over,))).then_refused(NegativeAmount, line_id=None, amount=-1)

    def test_may_bring_a_line_to_0_and_not_below(self) -> None:
        free, over = (Charge("1", ChargeKind.DISCOUNT, -900 - more, None, "1") for more in (0, 1))
        given().when(place(MUG, LAMP, charges=(free,))).then(with_charges(free))
        given().when(place(MUG, LAMP, charges=(over,))).then_refused(NegativeAmount, line_id="1", amount=-1)

    @pytest.mark.parametrize(
        "command", [RemoveOrderItem(ORDER, "LAMP"), ChangeLineQuantity(ORDER, "2", 0)], ids=lambda c: type(c).__name__
    )
    def test_may_not_exceed_what_is_left_of_the_order(self, command: OrderCommand) -> None:
        discount = Charge("1", ChargeKind.DISCOUNT, -901)
        given(with_charges(discount)).when(command).then_refused(NegativeAmount, line_id=None, amount=-1)

    def test_may_not_exceed_what_is_left_of_a_line(self) -> None:
        discount = Charge("1", ChargeKind.DISCOUNT, -451, None, "1")
        change = ChangeLineQuantity(ORDER, "1", 1)
        given(with_charges(discount)).when(change).then_refused(NegativeAmount, line_id="1", amount=-1)

    def test_that_are_discounts_are_shared_by_the_amounts_of_lines(self) -> None:
        amounts = charged_amounts({"1": 100, "2": 100, "3": 100}, [Charge("1", ChargeKind.DISCOUNT, -100)])
        assert amounts.lines == {"1": 66, "2": 67, "3": 67}
        assert amounts.charges == {"1": 0}

    def test_that_exceed_the_lines_are_taken_from_other_charges(self) -> None:
        charges = [FREIGHT, Charge("2", ChargeKind.FEE, 100), Charge("3", ChargeKind.DISCOUNT, -700)]
        amounts = charged_amounts({"1": 400}, charges)
        assert (amounts.lines, amounts.charges) == ({"1": 0}, {"1": 250, "2": 50, "3": 0})


@pytest.mark.parametrize(
    ("amount", "weights", "shares"),
    [
        (100, [1, 1, 1], [34, 33, 33]),
        (5, [3, 3, 1], [2, 2, 1]),
        (0, [3, 4], [0, 0]),
        (0, [0, 0], [0, 0]),
        (7, [7], [7]),
        (0, [], []),
    ],
)
def test_an_amount_is_split_to_the_minor_unit(amount: int, weights: list[int], shares: list[int]) -> None:
    assert allocate(amount, weights) == shares


class TestAddress:
    HOME = Address("Ada", ("12 St James's Square",), "London", "GB")

    def test_as_a_value_changes_with_its_id(self) -> None:
        move = ChangeShippingAddress(ORDER, "office", "moved", self.HOME)
        after = given(placed()).when(move).then(ShippingAddressChanged("office", "moved", self.HOME))
        assert after is not None
        assert after.shipping_address == self.HOME

    def test_changes_as_a_value_alone(self) -> None:
        move = ChangeShippingAddress(ORDER, "home", None, self.HOME)
        given(placed()).when(move).then(ShippingAddressChanged("home", None, self.HOME))

    def test_that_it_has_changes_nothing(self) -> None:
        moved = ShippingAddressChanged("office", "moved", self.HOME)
        given(placed(), moved).when(ChangeShippingAddress(ORDER, "office", None, self.HOME)).then_nothing_changes()
