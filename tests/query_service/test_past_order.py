"""The fold of the past, and the document it is shown as. Pure."""

from __future__ import annotations

import itertools

from hypothesis import given as for_all
from hypothesis import settings as effort

from projector.projections.orders import OrderDocument
from query_service import time_travel
from query_service.point_in_time import PointInTime
from query_service.time_travel import PastOrder
from shared.eventstore.log import StoredEvent
from tests.given_when_then import fold
from tests.lives import ID, Happening, as_rows, bytes_of, included, instants, lives, projected


def order_then(rows: list[StoredEvent], moment: PointInTime) -> PastOrder | None:
    past: PastOrder | None = None
    for row in itertools.takewhile(moment.includes, rows):
        past = time_travel.after(past, row)
    return past


@for_all(lives())
@effort(max_examples=60, deadline=None)
def test_the_state_at_every_instant_of_both_times_is_the_fold_of_what_had_happened_and_was_known(
    life: list[Happening],
) -> None:
    rows = as_rows(life)
    for as_of in instants([row.occurred_at for row in rows]):
        for known_at in instants([row.recorded_at for row in rows]):
            past = order_then(rows, PointInTime(as_of, known_at))
            prefix = [life[row.version - 1].event for row in included(rows, as_of, known_at)]
            assert (None if past is None else past.order) == fold(*prefix)
            assert (0 if past is None else past.version) == len(prefix)


@for_all(lives())
@effort(deadline=None)
def test_the_document_at_every_version_is_the_projections_to_the_byte(life: list[Happening]) -> None:
    rows = as_rows(life)
    past: PastOrder | None = None
    for row in rows:
        past = time_travel.after(past, row)
        assert bytes_of(time_travel.document(ID, past)) == bytes_of(projected(ID, rows[: row.version]))


def test_the_documents_have_the_same_fields() -> None:
    ours, theirs = time_travel.OrderDocument, OrderDocument
    assert ours.__struct_fields__ == theirs.__struct_fields__
