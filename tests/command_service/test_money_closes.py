"""Money closes at every version of every life of an order, whatever is commanded in whatever sequence."""

from __future__ import annotations

from collections import Counter
from functools import reduce

import pytest
from hypothesis import given as for_all
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from command_service.domain.order import (
    CapturePayment,
    ConfirmPayment,
    OrderCommand,
    PlaceOrder,
    ReceiveReturn,
    RecordPayment,
    RefundPayment,
    RequestReturn,
    ShipOrder,
    VoidPayment,
    decide,
)
from shared.aggregates.order import LineQuantity, Order, OrderDocument, OrderStatus, ReceivedLine, State, evolve
from shared.aggregates.order.document_fold import apply
from shared.errors import OrdersError
from tests.effort import examples
from tests.lives import EPOCH, ID
from tests.order_commands import commands, fitted, placings


class Ledger:
    """What was captured and refunded of each payment, counted from the commands that were accepted."""

    def __init__(self) -> None:
        self.authorised: Counter[str] = Counter()
        self.captured: Counter[str] = Counter()
        self.voided: Counter[str] = Counter()
        self.refunded: Counter[str] = Counter()

    def add(self, command: OrderCommand) -> None:
        match command:
            case ConfirmPayment(_, reference, amount) | RecordPayment(_, reference, amount, True):
                self.captured[reference] += amount
            case RecordPayment(_, reference, amount, False):
                self.authorised[reference] += amount
            case CapturePayment(_, reference, amount):
                left = self.authorised[reference] - self.captured[reference] - self.voided[reference]
                self.captured[reference] += left if amount is None else amount
            case VoidPayment(_, reference):
                self.voided[reference] = self.authorised[reference] - self.captured[reference]
            case RefundPayment(_, _, reference, amount):
                self.refunded[reference] += amount
            case _:
                pass


class OrderMoney(RuleBasedStateMachine):
    """Gives random commands, and compares the order with a ledger that does not know its code."""

    state: State = None
    document: OrderDocument | None = None

    def __init__(self) -> None:
        super().__init__()
        self.ledger = Ledger()

    @initialize(command=placings)
    def place(self, command: PlaceOrder) -> None:
        self.give(command)

    @rule(command=commands)
    def change(self, command: OrderCommand) -> None:
        self.give(fitted(command, self.state))

    def give(self, command: OrderCommand) -> None:
        try:
            events = decide(command, self.state)
        except OrdersError:
            return
        for event in events:
            self.state = evolve(self.state, event)
            version = 1 if self.document is None else self.document.version + 1
            self.document = apply(ID, self.document, event, version, EPOCH)
            closes(self.document)
        if events:
            self.ledger.add(command)

    @invariant()
    def agrees_with_the_ledger(self) -> None:
        if self.state is None or self.document is None:
            return
        assert self.document.amount_paid == self.ledger.captured.total()
        assert self.document.amount_refunded == self.ledger.refunded.total()
        for payment in self.document.payments:
            reference = payment.payment_reference
            assert payment.amount_captured == self.ledger.captured[reference]
            assert payment.amount_refunded == self.ledger.refunded[reference]

    @invariant()
    def decides_on_what_it_shows(self) -> None:
        order, shown = self.state, self.document
        if order is None or shown is None:
            return
        assert (order.status, order.total, order.payable) == (shown.status, shown.total_amount, shown.amount_payable)
        assert (order.amount_due, order.refund_due) == (shown.amount_due, shown.refund_due)
        assert (order.paid, order.authorised) == (
            shown.amount_paid - shown.amount_refunded,
            shown.amount_authorised,
        )
        assert [*order.lines] == [item.line_id for item in shown.items]

    @invariant()
    def ships_and_takes_back_what_there_is(self) -> None:
        if self.document is None:
            return
        ordered = Counter({item.line_id: item.quantity for item in self.document.items})
        shipped: Counter[str] = Counter()
        requested: Counter[str] = Counter()
        for shipment in self.document.shipments:
            shipped.update({line.line_id: line.quantity for line in shipment.lines})
        for one in self.document.returns:
            requested.update({line.line_id: line.quantity for line in one.lines})
            assert all(line.restocked + line.written_off <= line.quantity for line in one.lines)
        assert requested <= shipped <= ordered
        whole = shipped == ordered
        assert whole == (self.document.status in (OrderStatus.SHIPPED, OrderStatus.DELIVERED))


def closes(order: OrderDocument) -> None:
    """What was paid and kept is what the order costs, less what is due or more by what is owed back."""
    assert order.amount_paid - order.amount_refunded == order.amount_payable - order.amount_due + order.refund_due
    assert order.amount_due == 0 or order.refund_due == 0
    assert min(order.amount_due, order.refund_due, order.amount_payable, order.total_amount) >= 0
    assert order.amount_payable <= order.total_amount
    for payment in order.payments:
        assert 0 <= payment.amount_refunded <= payment.amount_captured
        assert payment.amount_captured + payment.amount_voided <= payment.amount
    assert order.amount_paid == sum(payment.amount_captured for payment in order.payments)
    assert order.amount_refunded == sum(refund.amount for refund in order.refunds)
    if order.charges:
        of_lines = [item.charged_amount for item in order.items]
        assert all(amount is not None and amount >= 0 for amount in of_lines)
        of_charges = [charge.charged_amount for charge in order.charges]
        assert min(of_charges) >= 0
        assert sum(of_charges) + sum(amount or 0 for amount in of_lines) == order.total_amount
    else:
        assert sum(item.line_total for item in order.items) == order.total_amount


@pytest.mark.promise(
    "orders", "At every version of an order, what was paid and kept is what it costs, less what is due"
)
@pytest.mark.hypothesis
def test_money_closes_whatever_is_commanded() -> None:
    run_state_machine_as_test(
        OrderMoney, settings=settings(max_examples=examples(150), stateful_step_count=40, deadline=None)
    )


@pytest.mark.promise("orders", "Refunds by line add up to exactly what the line was charged, whatever the discounts")
@for_all(placings, st.data())
@settings(deadline=None)
def test_all_pieces_that_come_back_one_after_the_other_are_worth_what_the_lines_were_charged(
    placing: PlaceOrder, data: st.DataObject
) -> None:
    try:
        order = after(None, placing)
        order = after(order, RecordPayment(ID, "a", max(1, order.total)), ShipOrder(ID, "track"))
    except OrdersError:
        return
    pieces = [line_id for line_id, line in order.lines.items() for _ in range(line.quantity)]
    lines = tuple([LineQuantity(line_id, line.quantity) for line_id, line in order.lines.items()])
    order = after(order, RequestReturn(ID, "back", lines, "all of it"))
    for line_id in data.draw(st.permutations(pieces)):
        order = after(order, ReceiveReturn(ID, "back", (ReceivedLine(line_id, 1, restock=True),)))
        assert order.payable >= 0
    document = shown(placing)
    assert order.payable == sum(charge.charged_amount for charge in document.charges)


def after(state: State, *given: OrderCommand) -> Order:
    for command in given:
        state = reduce(evolve, decide(command, state), state)
    assert state is not None
    return state


def shown(placing: PlaceOrder) -> OrderDocument:
    [placed] = decide(placing, None)
    return apply(ID, None, placed, 1, EPOCH)
