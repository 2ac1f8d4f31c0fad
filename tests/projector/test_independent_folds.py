"""The projections of orders agree with folds that share no code with them, after every event of random lives."""

from __future__ import annotations

import json

import pytest
from hypothesis import example
from hypothesis import given as for_all
from hypothesis import settings as effort

from projector.projection import Contribution
from projector.projections.revenue_by_day import REVENUE_BY_DAY, OrderRevenue
from projector.routing import record
from shared.aggregates.order import Charge, OrderItemRemoved, OrderLine, OrderLineQuantityChanged, OrderPlaced
from shared.aggregates.order.events import ChargeKind
from tests.effort import examples
from tests.independent_folds import orders, revenue_by_day
from tests.lives import EPOCH, ID, Happening, as_rows, bytes_of, lives, projected

# Its last charge leaves an order with the line that it was of.
CHARGED = (Charge("1", ChargeKind.SHIPPING, 100, line_id="1"),)
LINES = (OrderLine("MUG", 1, 0), OrderLine("LAMP", 1, 100))
PAST_CHARGE = [
    Happening(OrderPlaced("a", "GBP", LINES, "a", charges=CHARGED), EPOCH, EPOCH),
    Happening(OrderItemRemoved("MUG"), EPOCH, EPOCH),
    Happening(OrderLineQuantityChanged("2", "LAMP", 2, 1, 100), EPOCH, EPOCH),
]


@pytest.mark.promise("read-models", "The document of an order and its revenue equal folds that share no code with them")
@for_all(lives())
@example(PAST_CHARGE)
@effort(max_examples=examples(200), deadline=None)
def test_a_document_and_its_share_of_the_revenue_are_those_of_the_independent_folds(life: list[Happening]) -> None:
    rows = as_rows(life)
    revenue: OrderRevenue | None = None
    for count, row in enumerate(rows, start=1):
        past = [one._asdict() for one in rows[:count]]
        assert json.loads(bytes_of(projected(ID, rows[:count]))) == orders.fold(past)[ID]
        revenue = REVENUE_BY_DAY.apply(ID, revenue, record(row))
        [(_, line)] = REVENUE_BY_DAY.entries(revenue)
        assert isinstance(line, Contribution)
        assert {line.key: line.amounts} == revenue_by_day.fold(past)
