"""Random lives of an order: whatever is commanded, in whatever sequence, the invariants hold."""

from __future__ import annotations

from functools import reduce
from typing import TypeAlias, get_args

from hypothesis import Phase, settings
from hypothesis import given as for_all
from hypothesis import strategies as st

from command_service.domain import order
from command_service.domain.order import (
    MAX_TOTAL,
    AddOrderItem,
    CancelOrder,
    ChangeShippingAddress,
    ConfirmDelivery,
    ConfirmPayment,
    OrderCommand,
    PlaceOrder,
    RemoveOrderItem,
    ShipOrder,
    decide,
)
from shared.aggregates.order import OrderEvent, OrderItemRemoved, OrderLine, OrderStatus, State, evolve
from shared.errors import OrdersError

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
    st.sampled_from([*[0, 1, 2] * 4, MAX_TOTAL // 3, MAX_TOTAL]),
    st.none() | NAMES,
)
PLACE = st.builds(PlaceOrder, st.just("42"), NAMES, st.just("GBP"), st.lists(LINES, max_size=3).map(tuple), NAMES)
COMMANDS: st.SearchStrategy[OrderCommand] = st.one_of(
    PLACE,
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
    """What was commanded in which state, and what came of it. Usually the order is placed soon and a payment fits, or
    few orders would move on."""
    life: Life = []
    state: State = None
    for command in [
        *draw(st.lists(COMMANDS, max_size=1)),
        draw(PLACE),
        *draw(st.lists(COMMANDS, min_size=6, max_size=25)),
    ]:
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


def test_lives_come_to_everything_that_can_happen_to_an_order() -> None:
    """Else the tests below would say little."""
    happened: set[object] = set()

    @settings(max_examples=200, derandomize=True, database=None, phases=[Phase.generate])
    @for_all(lives())
    def live(life: Life) -> None:
        happened.update(state.status for state, _, _ in life if state is not None)
        happened.update(type(event) for _, _, outcome in life if isinstance(outcome, list) for event in outcome)
        happened.update(type(outcome) for _, _, outcome in life if isinstance(outcome, OrdersError))

    live()
    never = {order.TooManyLines, order.OrderTooLarge}  # take 2,001 of them, and 640 KiB
    assert happened >= {*OrderStatus, *get_args(OrderEvent), *refusals()} - never


def refusals() -> set[object]:
    """Of the domain's rules."""
    return {value for value in vars(order).values() if isinstance(value, type) and hasattr(value, "code")}


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
def test_what_was_done_is_not_done_again(life: Life) -> None:
    """The same command, come twice: it changes nothing or is refused. A line more is a line more."""
    for state, command, outcome in life:
        if isinstance(outcome, list) and not isinstance(command, AddOrderItem):
            after = reduce(evolve, outcome, state)
            try:
                again: object = decide(command, after)
            except OrdersError as refusal:
                again = refusal.code
            refused = {PlaceOrder: "order-already-placed", RemoveOrderItem: "item-not-found"}
            assert again == refused.get(type(command), [])


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
