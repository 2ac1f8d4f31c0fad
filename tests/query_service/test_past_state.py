"""The fold of past events, and the document that time travel shows. Pure."""

from __future__ import annotations

import itertools
from datetime import datetime, timedelta
from typing import Any, NamedTuple

from hypothesis import given as for_all
from hypothesis import settings as effort
from hypothesis import strategies as st

from query_service import time_travel
from query_service.point_in_time import PointInTime
from shared.aggregates.aggregate import PastState
from shared.aggregates.order import ORDER
from shared.eventstore.log import StoredEvent
from tests.effort import examples
from tests.lives import EPOCH, ID, Happening, as_rows, bytes_of, included, instants, lives, projected


def order_at(rows: list[StoredEvent], point: PointInTime) -> PastState[Any] | None:
    past: PastState[Any] | None = None
    for row in itertools.takewhile(point.includes, rows):
        past = time_travel.advance(ORDER, past, row)
    return past


@for_all(lives())
@effort(max_examples=examples(60), deadline=None)
def test_the_state_at_a_point_in_time_is_the_fold_of_the_events_that_had_occurred_and_were_known(
    life: list[Happening],
) -> None:
    rows = as_rows(life)
    for as_of in instants([row.occurred_at for row in rows]):
        for known_at in instants([row.recorded_at for row in rows]):
            past = order_at(rows, PointInTime(as_of, known_at))
            prefix = included(rows, as_of, known_at)
            assert (None if past is None else past.state) == projected(ID, prefix)
            assert (0 if past is None else past.version) == len(prefix)


@for_all(lives())
@effort(deadline=None)
def test_the_document_of_an_order_at_every_version_equals_the_projections_byte_for_byte(life: list[Happening]) -> None:
    rows = as_rows(life)
    past: PastState[Any] | None = None
    for row in rows:
        past = time_travel.advance(ORDER, past, row)
        assert bytes_of(ORDER.render(ID, past)) == bytes_of(projected(ID, rows[: row.version]))


class Times(NamedTuple):
    """Of an event."""

    occurred_at: datetime
    recorded_at: datetime


HOUR = timedelta(hours=1)
BACKDATING = 3  # hours


@for_all(st.lists(st.tuples(st.integers(-BACKDATING, 4), st.integers(0, 2)), max_size=15))
def test_where_a_point_in_time_is_over_no_later_event_counts_however_far_events_are_backdated(
    steps: list[tuple[int, int]],
) -> None:
    """Each event occurred that many hours after the latest one before it."""
    events: list[Times] = []
    latest = recorded = EPOCH
    for occurred_after, recorded_after in steps:
        recorded += recorded_after * HOUR
        events.append(Times(latest + occurred_after * HOUR, recorded))
        latest = max(latest, events[-1].occurred_at)
    for as_of in {None, *(event.occurred_at for event in events)}:
        for known_at in {None, *(event.recorded_at for event in events)}:
            point = PointInTime(as_of, known_at)
            over = [point.is_over(event, BACKDATING * HOUR) for event in events]
            read = events[: over.index(True)] if True in over else events
            assert [*filter(point.includes, read)] == [*filter(point.includes, events)]
