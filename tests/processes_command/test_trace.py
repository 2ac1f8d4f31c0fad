"""The journey of an order, from the causes that its events name."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import msgspec
import pytest

from cli.process_admin.labels import duration, label_of
from cli.process_admin.trace import Event, journey, lines, walk
from command_service.processes import FULFILMENTS
from query_service.point_in_time import rfc3339
from shared.aggregates import parse_stream
from shared.eventstore.log import StoredEvent
from tests.simulation.world import World


def as_in_history(stored: StoredEvent, order_id: str) -> Event | None:
    """None for an event that is not of the order, or one of its processes."""
    parsed = parse_stream(stored.stream_id)
    assert parsed is not None
    aggregate, aggregate_id = parsed
    if aggregate.category == "process":
        stream, _, subject_id = aggregate_id.partition("-")
    else:
        stream, subject_id = aggregate.category, aggregate_id
    if subject_id != order_id or stream == "payment":
        return None
    return {
        "stream": stream,
        "event_id": str(stored.event_id),
        "event_type": stored.event_type,
        "position": stored.position,
        "occurred_at": rfc3339(stored.occurred_at),
        "recorded_at": rfc3339(stored.recorded_at),
        "data": msgspec.json.decode(stored.data),
        "metadata": msgspec.json.decode(stored.metadata),
    }


def journeys(form: str, seeds: range) -> list[list[Event]]:
    """Of simulated orders."""
    found = []
    for seed in seeds:
        world = World(seed, form)
        world.run()
        for order_id in world.orders:
            told = [as_in_history(stored, order_id) for stored in world.log]
            found += [[event for event in told if event is not None]]
    return found


@pytest.mark.promise("processes", "The trace of an order shows each of its events once, under what led to it")
@pytest.mark.parametrize("form", FULFILMENTS)
def test_each_event_is_told_once_under_what_led_to_it(form: str) -> None:
    for events in journeys(form, range(10)):
        roots = journey(events)
        told = Counter([step.text.rpartition(": ")[2] for _, step in walk(roots)])
        for event in events:
            if event["stream"] == "order":
                assert told[event["event_type"]] >= 1
        client = {
            event["metadata"]["command_id"] for event in events if event["metadata"]["command"] != "AdvanceProcess"
        }
        assert len([*walk(roots)]) == len(events) + len(client)
        ended = [line for line in lines(roots) if line.endswith(("ends: delivered", "ends: cancelled"))]
        assert len(ended) == len(FULFILMENTS[form])


def test_a_delivered_order_reads_from_top_to_bottom() -> None:
    delivered = ("ProcessEnded", {"outcome": "delivered"})
    found = journeys("orchestrated", range(20))
    events = next(one for one in found if delivered in [(event["event_type"], event["data"]) for event in one])
    told = [*lines(journey(events))]

    assert told[0] == "+0 s PlaceOrder"
    assert told[1] == "└─ order: OrderPlaced"
    assert "fulfilment: begins fulfilment, version 1" in told[2]
    order = [
        next(nr for nr, line in enumerate(told) if text in line) for text in ("asks for Authorise", "Authorise is")
    ]
    assert order == sorted(order)


def event(event_type: str, **data: object) -> Event:
    return {"event_type": event_type, "data": data, "occurred_at": "2026-01-31T12:00:00Z"}


@pytest.mark.parametrize(
    ("told", "label"),
    [
        (event("OrderPlaced"), "OrderPlaced"),
        (
            event("EffectAnswered", effect_id="e-1", outcome="Declined", data={"reason": "no funds"}),
            "Refund is answered: Declined (reason no funds)",
        ),
        (event("TimerSet", timer="review", due_at="2026-02-03T14:30:00Z"), "sets timer review, due in 3 d 2 h"),
        (
            event("CommandRefused", command="ShipItems", code="order-not-confirmed"),
            "gives ShipItems, which is refused: order-not-confirmed",
        ),
        (event("ProcessStuck", reason="\x1b[31mred"), "'is stuck: \\x1b[31mred'"),
    ],
)
def test_an_event_has_a_label(told: Event, label: str) -> None:
    assert label_of(told, {"e-1": "Refund"}) == label


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (timedelta(0), "0 s"),
        (timedelta(milliseconds=90), "0.09 s"),
        (timedelta(minutes=59), "59 min"),
        (timedelta(minutes=61), "1 h 1 min"),
        (timedelta(days=3), "3 d"),
    ],
)
def test_a_duration_has_two_units_at_most(time: timedelta, text: str) -> None:
    assert duration(time) == text
