"""Random commands on orders and stock, in any sequence: at every position nothing is oversold, and each order has
reserved what its state says."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule, run_state_machine_as_test

from command_service.domain.order import (
    AddOrderItem,
    CancelOrder,
    ChangeLineQuantity,
    ConfirmPayment,
    ExpireReservation,
    PlaceOrder,
    ReceiveReturn,
    RecordPayment,
    RemoveOrderItem,
    RequestReturn,
    ShipItems,
    ShipOrder,
)
from command_service.domain.stock import AdjustStock, ReceiveStock
from shared.aggregates.order import ORDER, LineQuantity, Order, OrderStatus, ReceivedLine
from shared.aggregates.stock import STOCK
from shared.errors import OrdersError
from tests.stocks import Books, Shop, line

PRODUCTS = "MUG", "LAMP", "PEN"
ORDERS = "1", "2", "3"

_orders = st.sampled_from(ORDERS)
_products = st.sampled_from(PRODUCTS)
_lines = st.builds(line, _products, st.integers(1, 4))
_line_ids = st.sampled_from(["1", "2", "3"])
_names = st.sampled_from(["a", "b", "c"])
_pieces = st.builds(lambda line_id, count: (LineQuantity(line_id, count),), _line_ids, st.integers(1, 3))
_received = st.builds(
    lambda line_id, count, restock: (ReceivedLine(line_id, count, restock),),
    _line_ids,
    st.integers(1, 3),
    st.booleans(),
)
_placings = st.builds(
    PlaceOrder, _orders, _names, st.just("GBP"), st.lists(_lines, min_size=1, max_size=3).map(tuple), _names
)
COMMANDS = st.one_of(
    st.builds(ReceiveStock, _products, st.integers(1, 6)),
    st.builds(AdjustStock, _products, st.integers(-3, 3), _names),
    _placings,
    _placings,
    st.builds(AddOrderItem, _orders, _lines),
    st.builds(RemoveOrderItem, _orders, _products),
    st.builds(ChangeLineQuantity, _orders, _line_ids, st.integers(0, 5)),
    st.builds(CancelOrder, _orders, _names),
    st.builds(ExpireReservation, _orders),
    st.builds(ShipOrder, _orders, _names),
    st.builds(ShipItems, _orders, _names, _names, st.none(), _pieces),
    st.builds(RequestReturn, _orders, _names, _pieces, _names),
    st.builds(ReceiveReturn, _orders, _names, _received),
)


class Sales(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.shop = Shop()
        self.books = Books()
        self.read = 0

    @rule(command=COMMANDS)
    def command(self, command: Any) -> None:
        try:
            self.shop.do(command)
        except OrdersError:
            return

    @rule(order_id=_orders, at_once=st.booleans())
    def pay(self, order_id: str, at_once: bool) -> None:
        order: Order | None = self.shop.states.get(ORDER.stream_of(order_id))
        if order is not None and order.amount_due:
            kind = ConfirmPayment if at_once else RecordPayment
            self.command(kind(order_id, f"pay-{len(self.shop.log)}", order.amount_due))

    @invariant()
    def the_books_balance_and_each_order_has_reserved_what_its_state_says(self) -> None:
        for stream, event in self.shop.log[self.read :]:
            if (product_id := STOCK.id_of(stream)) is not None:
                self.books.add(product_id, event)
        self.read = len(self.shop.log)
        for product_id in PRODUCTS:
            if (stock := self.shop.stock(product_id)) is not None:
                books = self.books
                assert (stock.sold, stock.reserved) == (books.sold[product_id], books.reserved[product_id])
                assert stock.sold + stock.reserved + stock.available == books.brought[product_id]

        for order_id in ORDERS:
            order: Order | None = self.shop.states.get(ORDER.stream_of(order_id))
            if order is not None:
                assert self.books.held[order_id] == order.reserved()
                if order.status in (OrderStatus.CANCELLED, OrderStatus.SHIPPED):
                    assert not order.reserved()


@pytest.mark.promise("orders", "Sold, reserved and available pieces of a product sum to those received and adjusted")
def test_nothing_is_ever_oversold() -> None:
    run_state_machine_as_test(Sales, settings=settings(max_examples=40, stateful_step_count=40, deadline=None))
