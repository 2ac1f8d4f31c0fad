"""Random lives of an order: whatever is commanded, in whatever sequence, the invariants hold."""

from __future__ import annotations

from contextlib import suppress
from functools import reduce
from typing import TypeAlias, get_args

import pytest
from hypothesis import Phase, settings
from hypothesis import given as for_all
from hypothesis import strategies as st

from command_service.domain import order
from command_service.domain.order import (
    MAX_TOTAL,
    AddOrderItem,
    CapturePayment,
    ChangeLineQuantity,
    OrderCommand,
    PlaceOrder,
    ReceiveReturn,
    RemoveOrderItem,
    decide,
)
from shared.aggregates.order import (
    Charge,
    ChargeKind,
    OrderEvent,
    OrderItemRemoved,
    OrderItemsReserved,
    OrderLine,
    OrderReservationExpired,
    OrderStatus,
    State,
    evolve,
)
from shared.errors import OrdersError
from tests.order_commands import STEPS, any_placings, fitted, placings
from tests.order_commands import commands as order_commands

Outcome: TypeAlias = list[OrderEvent] | OrdersError
Life: TypeAlias = list[tuple[State, OrderCommand, Outcome]]

EDGES: dict[OrderStatus | None, set[OrderStatus]] = {
    None: {OrderStatus.PENDING},
    OrderStatus.PENDING: {OrderStatus.PENDING, OrderStatus.CONFIRMED, OrderStatus.CANCELLED},
    OrderStatus.CONFIRMED: {OrderStatus.CONFIRMED, OrderStatus.SHIPPED, OrderStatus.CANCELLED},
    OrderStatus.SHIPPED: {OrderStatus.SHIPPED, OrderStatus.DELIVERED},
    OrderStatus.DELIVERED: {OrderStatus.DELIVERED},
    OrderStatus.CANCELLED: {OrderStatus.CANCELLED},
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
PLACE = (
    placings
    | any_placings
    | st.builds(PlaceOrder, st.just("42"), NAMES, st.just("GBP"), st.lists(LINES, max_size=3).map(tuple), NAMES)
)
DISCOUNTED = PlaceOrder("42", "a", "GBP", (OrderLine("MUG", 1, 1),), "a", (Charge("", ChargeKind.DISCOUNT, -2),))
COMMANDS: st.SearchStrategy[OrderCommand] = st.one_of(
    PLACE,
    st.just(DISCOUNTED),
    st.builds(AddOrderItem, st.just("42"), LINES),
    order_commands,
    order_commands,
    order_commands,
)


# The second time. A change of the lines may have confirmed the order.
REFUSED_AGAIN: dict[type[OrderCommand], set[str]] = {
    PlaceOrder: {"order-already-placed"},
    RemoveOrderItem: {"item-not-found", "order-not-pending"},
    ChangeLineQuantity: {"line-not-found", "order-not-pending"},
}


@st.composite
def lives(draw: st.DrawFn) -> Life:
    """What was commanded in which state, and what came of it. Usually the order is placed soon and a payment fits, or
    few orders would move on."""
    life: Life = []
    state: State = None
    steps = [step for step in STEPS if draw(st.integers(0, 4))] if draw(st.booleans()) else []
    for command in [
        *draw(st.lists(COMMANDS, max_size=2)),
        draw(PLACE),
        *draw(st.lists(COMMANDS, max_size=12)),
        *steps,
        *draw(st.lists(COMMANDS, max_size=12)),
    ]:
        command = fitted(command, state)  # noqa: PLW2901
        try:
            outcome: Outcome = decide(command, state)
        except OrdersError as refusal:
            outcome = refusal
        life.append((state, command, outcome))
        if isinstance(outcome, list):
            state = reduce(evolve, outcome, state)
    return life


@pytest.mark.filterwarnings("ignore:Generating overly large repr")  # of the life that ends the search
def test_lives_come_to_everything_that_can_happen_to_an_order() -> None:
    """Else the tests below would say little."""
    happened: set[object] = set()
    # They take thousands of lines, a hundred payments, 640 KiB, two orders, or ids that are the client's.
    never = {order.TooManyLines, order.TooManyEntries, order.OrderTooLarge, order.PaymentReferenceInUse}
    never |= {order.DuplicateChargeId, OrderItemsReserved, OrderReservationExpired}  # these take a tracked product
    awaited = {*OrderStatus, *get_args(OrderEvent), *refusals()} - never

    class Complete(Exception):
        """More lives would show no more."""

    @settings(max_examples=300, derandomize=True, database=None, phases=[Phase.generate], report_multiple_bugs=False)
    @for_all(lives())
    def live(life: Life) -> None:
        happened.update(state.status for state, _, _ in life if state is not None)
        happened.update(type(event) for _, _, outcome in life if isinstance(outcome, list) for event in outcome)
        happened.update(type(outcome) for _, _, outcome in life if isinstance(outcome, OrdersError))
        if happened >= awaited:
            raise Complete

    with suppress(Complete):
        live()
    assert happened >= awaited


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
            of_lines = sum(line.quantity * line.unit_price for line in after.items)
            assert after.total == of_lines + sum(charge.amount for charge in after.charges)
            assert len(after.lines) == len(after.items), "each line has an id of its own"
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
    """The same command, come twice: it changes nothing or is refused. What adds up does so each time: a line more, a
    part of an authorisation, a part of a return."""
    for state, command, outcome in life:
        if isinstance(outcome, list) and not isinstance(command, AddOrderItem | CapturePayment | ReceiveReturn):
            after = reduce(evolve, outcome, state)
            try:
                again: object = decide(command, after)
            except OrdersError as refusal:
                again = refusal.code
            assert again == [] or again in REFUSED_AGAIN.get(type(command), set())


@for_all(lives())
def test_a_removed_product_is_gone(life: Life) -> None:
    for state, _, outcome in life:
        if isinstance(outcome, list) and outcome and isinstance(outcome[0], OrderItemRemoved):
            after = evolve(state, outcome[0])
            assert outcome[0].product_id not in {line.product_id for line in after.items}
