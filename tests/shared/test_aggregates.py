"""The registry of aggregates refuses what would make a stored name ambiguous."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any
from unittest.mock import patch

import msgspec
import pytest

from shared.aggregates import AGGREGATES, EVENT_TYPES, DuplicateEventType, RegistrationError, parse_stream, register
from shared.aggregates.aggregate import Aggregate
from shared.aggregates.order import ORDER
from shared.eventstore import codec
from shared.eventstore.codec import UnknownEventType


class CounterStarted(msgspec.Struct, frozen=True):
    by: int


@dataclass(frozen=True)
class Counter:
    total: int


def evolve(state: Counter | None, event: CounterStarted) -> Counter:
    return Counter((state.total if state else 0) + event.by)


COUNTER = Aggregate("counter", Counter, (CounterStarted,), evolve)


@pytest.fixture(autouse=True)
def _registries() -> Iterator[None]:
    """As they were, after each test."""
    with patch.dict(AGGREGATES), patch.dict(EVENT_TYPES):
        yield


def test_a_registered_aggregate_has_its_streams_and_events() -> None:
    register(COUNTER)
    assert parse_stream("counter-a-1") == (COUNTER, "a-1")
    assert codec.decode(*codec.encode(CounterStarted(2))) == CounterStarted(2)


@pytest.mark.parametrize("functions", [{"evolve": None}, {"evolve_at": lambda state, event, _: evolve(state, event)}])
def test_an_aggregate_has_one_of_evolve_and_evolve_at(functions: dict[str, Any]) -> None:
    with pytest.raises(RegistrationError, match="one of evolve and evolve_at"):
        register(replace(COUNTER, **functions))


def test_an_aggregate_that_is_not_registered_has_none() -> None:
    assert parse_stream("counter-a-1") is None
    with pytest.raises(UnknownEventType):
        codec.decode("CounterStarted", 1, "{}")


@pytest.mark.parametrize(
    ("stream_id", "order_id"),
    [
        ("order-42", "42"),
        ("order-customer-17850", "customer-17850"),
        ("shopper-17850", None),
        ("orders-42", None),
        ("order", None),
        ("", None),
    ],
)
def test_a_stream_belongs_to_the_aggregate_of_its_category_only(stream_id: str, order_id: str | None) -> None:
    assert ORDER.id_of(stream_id) == order_id
    assert parse_stream(stream_id) == (None if order_id is None else (ORDER, order_id))


def test_the_name_of_a_stream_is_read_as_it_is_written() -> None:
    for order_id in ("42", "a-b-c", "-", "order-1"):
        assert parse_stream(ORDER.stream_of(order_id)) == (ORDER, order_id)


class Other:
    class OrderPlaced(msgspec.Struct):
        pass


@pytest.mark.parametrize("category", ["two-words", "", "Order", "1st", "order"])
def test_a_category_that_is_malformed_or_in_use_is_refused(category: str) -> None:
    with pytest.raises(RegistrationError):
        register(replace(COUNTER, category=category))


def test_an_event_type_of_another_aggregate_is_refused() -> None:
    def never(_state: Counter | None, _event: Any) -> Counter:
        raise NotImplementedError

    other = Aggregate("other", Counter, (Other.OrderPlaced,), never)
    with pytest.raises(DuplicateEventType, match="'other' and 'order' both have an event type OrderPlaced"):
        register(other)
    assert "other" not in AGGREGATES


def test_a_version_without_its_upcaster_is_refused() -> None:
    with pytest.raises(RegistrationError, match="one upcaster from each version before 3"):
        register(replace(COUNTER, versions={CounterStarted: 3}))
