"""Random lives of an order: whatever is commanded, in whatever sequence, the invariants hold."""

from __future__ import annotations

from functools import reduce
from typing import TypeAlias

from hypothesis import given as for_all
from hypothesis import strategies as st

from command_service.domain.order import (
    MAX_TOTAL,
    AddOrderItem,
    CancelOrder,
    ChangeShippingAddress,
    ConfirmDelivery,
    ConfirmPayment,
    OrderCommand,
    OrderStatus,
    PlaceOrder,
    RemoveOrderItem,
    ShipOrder,
    State,
    decide,
    evolve,
)
from shared.errors import OrdersError
from shared.events.order import OrderEvent, OrderItemRemoved, OrderLine

Outcome: TypeAlias = list[OrderEvent] | OrdersError
Life: TypeAlias = list[tuple[State, OrderCommand, Outcome]]

EDGES: dict[OrderStatus | None, set[OrderStatus]] = {
    None: {OrderStatus.PENDING},
    OrderStatus.PENDING: {OrderStatus.PENDING, OrderStatus.CONFIRMED, OrderStatus.CANCELLED},
    OrderStatus.CONFIRMED: {OrderStatus.SHIPPED, OrderStatus.CANCELLED},
    OrderStatus.SHIPPED: {OrderStatus.DELIVERED},
    OrderStatus.DELIVERED: set(),
    OrderStatus.CANCELLED: set(),
}

# Few names and small sums, so that lives meet: the same product twice, a payment that fits.
PRODUCTS = st.sampled_from(["MUG", "LAMP", "PEN"])
NAMES = st.sampled_from(["a", "b"])
LINES = st.builds(
    OrderLine,
    PRODUCTS,
    st.integers(1, 3),
    st.sampled_from([0, 1, 2, MAX_TOTAL // 3, MAX_TOTAL]),
    st.none() | NAMES,
)
COMMANDS: st.SearchStrategy[OrderCommand] = st.one_of(
    st.builds(PlaceOrder, st.just("42"), NAMES, st.just("GBP"), st.lists(LINES, max_size=3).map(tuple), NAMES),
    st.builds(AddOrderItem, st.just("42"), LINES),
    st.builds(RemoveOrderItem, st.just("42"), PRODUCTS),
    st.builds(ChangeShippingAddress, st.just("42"), NAMES, st.none() | NAMES),
    st.builds(ConfirmPayment, st.just("42"), NAMES, st.integers(0, 9)),
    st.builds(ShipOrder, st.just("42"), NAMES, st.none() | NAMES),
    st.builds(ConfirmDelivery, st.just("42")),
    st.builds(CancelOrder, st.just("42"), NAMES),
)


@st.composite
def lives(draw: st.DrawFn) -> Life:
    """What was commanded in which state, and what came of it. Payments usually fit, or few orders would move on."""
    life: Life = []
    state: State = None
    for command in draw(st.lists(COMMANDS, max_size=25)):
        if isinstance(command, ConfirmPayment) and state is not None and command.amount < 8:
            command = ConfirmPayment(command.order_id, command.payment_reference, state.total)  # noqa: PLW2901
        try:
            outcome: Outcome = decide(command, state)
        except OrdersError as refusal:
            outcome = refusal
        life.append((state, command, outcome))
        if isinstance(outcome, list):
            state = reduce(evolve, outcome, state)
    return life


@for_all(lives())
def test_a_life_keeps_the_invariants(life: Life) -> None:
    history: list[OrderEvent] = []
    for before, command, outcome in life:
        nothing: State = None
        assert reduce(evolve, history, nothing) == before, "the fold of the history is the state"
        if isinstance(outcome, OrdersError):
            assert outcome.code
            assert outcome.detail
            continue
        after = before
        for event in outcome:
            status = after.status if after else None
            after = evolve(after, event)
            assert after.status in EDGES[status], f"{command} moved {status} to {after.status}"
            assert 1 <= len(after.items) <= 2_000
            assert 0 <= after.total < 2**53
            assert after.total == sum(line.quantity * line.unit_price for line in after.items)
        history += outcome


@for_all(lives())
def test_deciding_again_in_the_same_state_comes_to_the_same(life: Life) -> None:
    for state, command, outcome in life:
        try:
            again: object = decide(command, state)
        except OrdersError as refusal:
            assert isinstance(outcome, OrdersError)
            again = outcome if (type(refusal), vars(refusal)) == (type(outcome), vars(outcome)) else refusal
        assert again == outcome


@for_all(lives())
def test_what_was_paid_is_what_the_order_costs_and_what_is_owed_back(life: Life) -> None:
    for state, _, _ in life:
        if state is not None and state.payment is not None:
            assert state.payment.amount == state.total
        if state is not None and state.cancellation is not None:
            assert state.cancellation.refund_amount == (state.payment.amount if state.payment else 0)


@for_all(lives())
def test_a_removed_product_is_gone(life: Life) -> None:
    for state, _, outcome in life:
        if isinstance(outcome, list) and outcome and isinstance(outcome[0], OrderItemRemoved):
            after = evolve(state, outcome[0])
            assert outcome[0].product_id not in {line.product_id for line in after.items}
