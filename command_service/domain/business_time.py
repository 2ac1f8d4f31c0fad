"""The business time of a command's events: the given one or now, not in the future, not long before earlier events."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from shared.errors import Invalid, Rejected

TOLERANCE = timedelta(minutes=1)  # clocks differ


@dataclass
class OccurredInTheFuture(Invalid):
    occurred_at: datetime
    now: datetime
    code = "occurred-in-the-future"
    title = "The given time has not come yet"

    @property
    def detail(self) -> str:
        return f"occurred_at {self.occurred_at.isoformat()} is later than now ({self.now.isoformat()})."


@dataclass
class OccurredBeforePreviousEvent(Rejected):
    occurred_at: datetime
    previous: datetime
    code = "occurred-before-previous-event"
    title = "The given time lies before the previous event"

    @property
    def detail(self) -> str:
        return (
            f"occurred_at {self.occurred_at.isoformat()} lies before the previous event ({self.previous.isoformat()})."
        )


def occurred_at(given: datetime | None, now: datetime, previous: datetime | None) -> datetime:
    """The business time of the next event. `check` says whether the log may hold it."""
    if given is not None:
        return given
    # A previous event may lie up to the tolerance ahead of our clock; time still does not run backwards.
    return max(now, previous) if previous else now


def check(given: datetime, now: datetime, previous: datetime | None, backdating: timedelta = timedelta(0)) -> None:
    """Raises `OccurredInTheFuture`, or `OccurredBeforePreviousEvent` where that is longer than `backdating` ago."""
    if given > now + TOLERANCE:
        raise OccurredInTheFuture(given, now)
    if previous is not None and previous - given > backdating:
        raise OccurredBeforePreviousEvent(given, previous)
