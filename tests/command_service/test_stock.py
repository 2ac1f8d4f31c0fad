"""Every rule of stock and of what orders reserve of it, both ways: pure, no server."""

from __future__ import annotations

from typing import Any

import pytest

from command_service.domain.order import (
    AddOrderItem,
    CancelOrder,
    ChangeLineQuantity,
    ConfirmPayment,
    ExpireReservation,
    OrderAlreadyPlaced,
    ReceiveReturn,
    RecordPayment,
    RemoveOrderItem,
    RequestReturn,
    ShipItems,
    ShipOrder,
)
from command_service.domain.stock import AdjustStock, InsufficientStock, ReceiveStock, Shortage
from shared.aggregates.order import (
    LineQuantity,
    OrderCancelled,
    OrderItemAdded,
    OrderItemsReserved,
    OrderReservationExpired,
    ReceivedLine,
)
from shared.aggregates.stock import Stock, StockAdjusted, StockReceived
from tests.stocks import ORDER_ID, expired, given, line, place, released, reserved, returned, shipped

TWO_MUGS = place(line("MUG", 2), line("PEN", 1))  # no stock of pens is kept
ADD_A_MUG = AddOrderItem(ORDER_ID, line("MUG", 1))
CANCEL = CancelOrder(ORDER_ID, "ordered twice")
EXPIRE = ExpireReservation(ORDER_ID)
SHIP = ShipOrder(ORDER_ID, "track-1")
PAY = ConfirmPayment(ORDER_ID, "pay-1", 300)


def change(quantity: int) -> ChangeLineQuantity:
    return ChangeLineQuantity(ORDER_ID, "1", quantity)


def ship(quantity: int, shipment_id: str = "s-1") -> ShipItems:
    return ShipItems(ORDER_ID, shipment_id, "track-1", None, (LineQuantity("1", quantity),))


def short(product_id: str, requested: int, available: int) -> dict[str, Any]:
    return {"items": [Shortage(product_id, requested, available)]}


class TestReceiptsAndAdjustments:
    def test_pieces_are_received(self) -> None:
        given().when(ReceiveStock("MUG", 5, "delivery-77")).then(MUG=[StockReceived(5, "delivery-77")])
        assert given(ReceiveStock("MUG", 3), MUG=5).shop.stock("MUG") == Stock(on_hand=8)

    def test_pieces_are_found_and_lost_but_never_more_than_are_available(self) -> None:
        given(MUG=5).when(AdjustStock("MUG", 2, "found")).then(MUG=[StockAdjusted(2, "found")])
        given(TWO_MUGS, MUG=5).when(AdjustStock("MUG", -3, "broken")).then(MUG=[StockAdjusted(-3, "broken")])
        given(TWO_MUGS, MUG=5).when(AdjustStock("MUG", -4, "broken")).then_refused(
            InsufficientStock, **short("MUG", 4, 3)
        )
        given().when(AdjustStock("MUG", -1, "broken")).then_refused(InsufficientStock, **short("MUG", 1, 0))

    def test_a_product_is_tracked_from_its_first_stock_command_on(self) -> None:
        given().when(AdjustStock("MUG", 0, "sold out")).then(MUG=[StockAdjusted(0, "sold out")]).when(
            TWO_MUGS
        ).then_refused(InsufficientStock, **short("MUG", 2, 0))
        given(MUG=5).when(AdjustStock("MUG", 0, "counted")).then(MUG=[])

    def test_what_was_ordered_before_changes_no_stock(self) -> None:
        past = given(TWO_MUGS, ReceiveStock("MUG", 5), PAY)
        past.when(SHIP).then()
        request = RequestReturn(ORDER_ID, "r-1", (LineQuantity("1", 2),), "broken")
        past.when(request).then().when(ReceiveReturn(ORDER_ID, "r-1", (ReceivedLine("1", 2, restock=True),))).then()
        assert past.shop.stock("MUG") == Stock(on_hand=5)


class TestReserving:
    def test_an_order_reserves_its_tracked_products(self) -> None:
        past = given(MUG=5).when(TWO_MUGS).then(MUG=[reserved(2)])
        assert past.shop.stock("MUG") == Stock(on_hand=5, reserved=2)
        assert past.shop.order().reserved_products == ("MUG",)

    def test_all_lines_of_a_product_count(self) -> None:
        twice = place(line("MUG", 2), line("MUG", 3))
        given(MUG=5).when(twice).then(MUG=[reserved(5)])
        given(MUG=4).when(twice).then_refused(InsufficientStock, **short("MUG", 5, 4))

    @pytest.mark.promise("orders", "An order reserves all its tracked products in its own append, or is refused")
    def test_an_order_reserves_all_or_is_refused_with_every_product_that_is_short(self) -> None:
        command = place(line("MUG", 2), line("LAMP", 1), line("PEN", 3))
        given(MUG=2, LAMP=1, PEN=3).when(command).then(MUG=[reserved(2)], LAMP=[reserved(1)], PEN=[reserved(3)])
        given(MUG=1, LAMP=1, PEN=2).when(command).then_refused(
            InsufficientStock, items=[Shortage("MUG", 2, 1), Shortage("PEN", 3, 2)]
        )

    def test_what_another_order_has_reserved_is_not_available(self) -> None:
        other = place(line("MUG", 4), order_id="41")
        given(other, MUG=6).when(TWO_MUGS).then(MUG=[reserved(2)])
        given(other, MUG=5).when(TWO_MUGS).then_refused(InsufficientStock, **short("MUG", 2, 1))

    def test_an_order_of_products_without_stock_reserves_nothing(self) -> None:
        past = given(LAMP=5).when(TWO_MUGS).then()
        assert past.shop.order().reserved_products == ()

    def test_an_order_that_is_refused_for_another_reason_says_so(self) -> None:
        given(TWO_MUGS, MUG=2).when(TWO_MUGS).then_refused(OrderAlreadyPlaced)

    def test_an_item_more_is_reserved_or_refused(self) -> None:
        given(TWO_MUGS, MUG=3).when(ADD_A_MUG).then([OrderItemAdded(ADD_A_MUG.item)], MUG=[reserved(1)])
        given(TWO_MUGS, MUG=2).when(ADD_A_MUG).then_refused(InsufficientStock, **short("MUG", 1, 0))

    def test_an_item_more_of_a_product_that_is_tracked_since_reserves_all_pieces(self) -> None:
        given(TWO_MUGS, ReceiveStock("MUG", 3)).when(ADD_A_MUG).then(
            [OrderItemAdded(ADD_A_MUG.item), OrderItemsReserved(("MUG",))], MUG=[reserved(3)]
        )
        given(TWO_MUGS, ReceiveStock("MUG", 2)).when(ADD_A_MUG).then_refused(InsufficientStock, **short("MUG", 3, 2))

    def test_a_larger_quantity_reserves_the_difference_a_smaller_one_releases_it(self) -> None:
        given(TWO_MUGS, MUG=5).when(change(5)).then(MUG=[reserved(3)])
        given(TWO_MUGS, MUG=5).when(change(6)).then_refused(InsufficientStock, **short("MUG", 4, 3))
        given(TWO_MUGS, MUG=5).when(change(1)).then(MUG=[released(1)])
        given(TWO_MUGS, MUG=5).when(change(0)).then(MUG=[released(2)])
        given(TWO_MUGS, MUG=5).when(change(2)).then()

    def test_a_larger_quantity_of_a_product_that_is_tracked_since_reserves_all_pieces(self) -> None:
        given(TWO_MUGS, ReceiveStock("MUG", 3)).when(change(3)).then(MUG=[reserved(3)])
        given(TWO_MUGS, ReceiveStock("MUG", 3)).when(change(1)).then()
        given(TWO_MUGS).when(change(3)).then()

    def test_a_removed_product_is_released(self) -> None:
        given(TWO_MUGS, MUG=5).when(RemoveOrderItem(ORDER_ID, "MUG")).then(MUG=[released(2)])
        given(TWO_MUGS, MUG=5).when(RemoveOrderItem(ORDER_ID, "PEN")).then()

    def test_a_cancelled_order_has_nothing_reserved(self) -> None:
        past = given(TWO_MUGS, MUG=5).when(CANCEL).then([OrderCancelled("ordered twice", 0)], MUG=[released(2)])
        past.when(CANCEL).then([])
        given(TWO_MUGS, PAY, MUG=5).when(CANCEL).then(MUG=[released(2)])


class TestShipping:
    def test_what_is_shipped_leaves_the_stock(self) -> None:
        past = given(TWO_MUGS, PAY, MUG=5).when(SHIP).then(MUG=[shipped(2)])
        assert past.shop.stock("MUG") == Stock(on_hand=3, sold=2)

    def test_parts_leave_one_by_one(self) -> None:
        past = given(TWO_MUGS, PAY, MUG=5).when(ship(1)).then(MUG=[shipped(1)])
        assert past.shop.stock("MUG") == Stock(on_hand=4, reserved=1, sold=1)
        past.when(ship(1)).then([])
        past.when(ship(1, "s-2")).then(MUG=[shipped(1)]).when(SHIP).then()

    def test_restocked_pieces_come_back_and_those_written_off_do_not(self) -> None:
        request = RequestReturn(ORDER_ID, "r-1", (LineQuantity("1", 2),), "broken")
        past = given(TWO_MUGS, PAY, SHIP, request, MUG=5)
        lines = ReceivedLine("1", 1, restock=True), ReceivedLine("1", 1, restock=False)
        past.when(ReceiveReturn(ORDER_ID, "r-1", lines)).then(MUG=[returned(1)])
        assert past.shop.stock("MUG") == Stock(on_hand=4, sold=1)


class TestExpiry:
    def test_a_reservation_of_a_pending_order_expires(self) -> None:
        past = given(TWO_MUGS, MUG=5).when(EXPIRE).then([OrderReservationExpired()], MUG=[expired(2)])
        assert past.shop.stock("MUG") == Stock(on_hand=5)
        past.when(EXPIRE).then([])
        past.when(CANCEL).then()

    @pytest.mark.parametrize("commands", [(), (CANCEL,), (PAY,), (PAY, SHIP)])
    def test_nothing_expires_of_another_order(self, commands: tuple[Any, ...]) -> None:
        past = given(TWO_MUGS, *commands, MUG=5) if commands else given(TWO_MUGS)
        past.when(EXPIRE).then([])

    @pytest.mark.parametrize("payment", [PAY, RecordPayment(ORDER_ID, "pay-1", 300, captured=False)])
    def test_an_order_that_is_confirmed_late_reserves_again_what_is_available(self, payment: Any) -> None:
        past = given(TWO_MUGS, EXPIRE, MUG=2).when(payment).then(MUG=[reserved(2)])
        assert past.shop.order().expired_products == ()

    def test_late_money_is_not_refused_where_too_little_is_left(self) -> None:
        past = given(TWO_MUGS, EXPIRE, place(line("MUG", 1), order_id="43"), MUG=2)
        past.when(PAY).then()
        past.when(SHIP).then_refused(InsufficientStock, **short("MUG", 2, 1))
        past.when(ReceiveStock("MUG", 1)).then(MUG=[StockReceived(1)])
        past.when(ship(1)).then(MUG=[reserved(1), shipped(1)]).when(SHIP).then(MUG=[reserved(1), shipped(1)])
        assert past.shop.stock("MUG") == Stock(on_hand=1, reserved=1, sold=2)

    def test_an_item_more_reserves_all_pieces_of_its_product_again(self) -> None:
        given(TWO_MUGS, EXPIRE, MUG=3).when(ADD_A_MUG).then(MUG=[reserved(3)])
        given(TWO_MUGS, EXPIRE, MUG=3).when(change(1)).then()
