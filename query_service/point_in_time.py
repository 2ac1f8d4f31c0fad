"""A point in time on both time axes, and the events of a stream that count at it. Pure.

`as_of` selects the events that had occurred by then (`occurred_at`, business time), `known_at` those that had been
recorded by then (`recorded_at`, the log's clock). A backdated event had occurred long before it was recorded.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple, Protocol

import msgspec

# How far in the future a requested time may lie. As much as a command's occurred_at, so that every time that a document
# shows can be asked for.
CLOCK_TOLERANCE = timedelta(minutes=1)


class Recorded(Protocol):
    """An event, or what is stored of one."""

    @property
    def occurred_at(self) -> datetime: ...

    @property
    def recorded_at(self) -> datetime: ...


class PointInTime(NamedTuple):
    """None: at any time."""

    as_of: datetime | None = None
    known_at: datetime | None = None

    def includes(self, event: Recorded) -> bool:
        """An event at the very instant counts."""
        return (self.as_of is None or event.occurred_at <= self.as_of) and (
            self.known_at is None or event.recorded_at <= self.known_at
        )

    def is_over(self, event: Recorded, backdating: timedelta) -> bool:
        """Whether this event of a stream, and each later one, is not included.

        `recorded_at` never decreases within a stream, and an event occurred at most `backdating` before an earlier one.
        """
        return (self.known_at is not None and event.recorded_at > self.known_at) or (
            self.as_of is not None and event.occurred_at - self.as_of > backdating
        )

    def __str__(self) -> str:
        """In a sentence: `as of …, known at …`; empty without either."""
        times = {"as of": self.as_of, "known at": self.known_at}
        return ", ".join(f"{name} {rfc3339(time)}" for name, time in times.items() if time is not None)


def rfc3339(time: datetime) -> str:
    """As in the JSON of answers."""
    return str(msgspec.to_builtins(time))
