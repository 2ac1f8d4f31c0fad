"""States that time travel has folded are kept within their bytes."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

import pytest

from query_service.past_states import EVERY_EVENTS, PastStates
from query_service.point_in_time import PointInTime
from shared.aggregates.aggregate import PastState
from tests.projector.test_versions import history

LOG = UUID(int=1)
NOW = PointInTime(None, datetime(2999, 1, 1, tzinfo=UTC))


@pytest.mark.promise("memory", "States that time travel has folded take a bounded number of bytes")
@pytest.mark.bound("query", "states that time travel has folded")
def test_the_states_that_were_used_longest_ago_are_dropped() -> None:
    saved = PastStates(max_bytes=50_000)
    [event, *_] = history()
    streams = [f"order-{number}" for number in range(20)]
    for stream_id in streams:
        for version in range(EVERY_EVENTS, 3 * EVERY_EVENTS, EVERY_EVENTS):
            of_stream = event._replace(stream_id=stream_id, version=version)
            saved.save(LOG, of_stream, PastState("x" * 4_000, event.occurred_at, event.occurred_at, version, {}))
    known = [stream_id for stream_id in streams if saved.find(LOG, stream_id, NOW) is not None]
    assert known == streams[-len(known) :]
    assert 5 <= len(known) <= 50_000 // 8_000
