from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from command_service.domain.business_time import (
    OccurredBeforePreviousEvent,
    OccurredInTheFuture,
    check,
    occurred_at,
)
from shared.errors import OrdersError

NOW = datetime(2026, 1, 31, 14, 30, tzinfo=UTC)
SECOND = timedelta(seconds=1)
MINUTE = timedelta(minutes=1)

TIMES = st.datetimes(timezones=st.just(UTC), min_value=datetime(1, 1, 1), max_value=datetime(9999, 12, 30))  # noqa: DTZ001 - the zone is given apart


def test_is_now_unless_given() -> None:
    assert occurred_at(None, NOW, None) == NOW
    assert occurred_at(None, NOW, NOW - SECOND) == NOW


def test_does_not_run_backwards_where_the_previous_event_is_ahead_of_our_clock() -> None:
    assert occurred_at(None, NOW, NOW + SECOND) == NOW + SECOND


def test_may_lie_far_in_the_past() -> None:
    long_ago = NOW - timedelta(days=20_000)
    assert occurred_at(long_ago, NOW, None) == long_ago
    check(long_ago, NOW, None)


def test_may_be_a_minute_ahead_and_no_more() -> None:
    check(NOW + MINUTE, NOW, None)
    with pytest.raises(OccurredInTheFuture):
        check(NOW + MINUTE + timedelta(microseconds=1), NOW, None)


def test_may_equal_the_previous_event_but_not_precede_it() -> None:
    check(NOW, NOW, NOW)
    with pytest.raises(OccurredBeforePreviousEvent):
        check(NOW - timedelta(microseconds=1), NOW, NOW)


def test_may_precede_it_by_as_much_as_its_aggregate_allows() -> None:
    check(NOW - MINUTE, NOW, NOW, MINUTE)
    with pytest.raises(OccurredBeforePreviousEvent):
        check(NOW - MINUTE - timedelta(microseconds=1), NOW, NOW, MINUTE)


@for_all(given=st.none() | TIMES, now=TIMES, previous=st.none() | TIMES)
def test_never_decreases_and_never_lies_ahead_of_both_clock_and_log(
    given: datetime | None, now: datetime, previous: datetime | None
) -> None:
    at = occurred_at(given, now, previous)
    try:
        if given is not None:  # our own clock is never refused
            check(given, now, previous)
    except OrdersError:
        pass
    else:
        assert previous is None or at >= previous
        assert at <= max(now + MINUTE, previous or now)
        assert given is None or at == given
