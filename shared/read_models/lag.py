"""The levels of lag, the action that each recommends, and the least age of an event that is not shown; for every
process that reports or limits lag."""

from __future__ import annotations

from collections import deque
from enum import StrEnum
from typing import NamedTuple


class LagLevel(StrEnum):
    NORMAL = "normal"
    WARNING = "warning"
    CRITICAL = "critical"
    EMERGENCY = "emergency"


class LagThreshold(NamedTuple):
    """A level begins above `above_seconds`; `action` is what to do then."""

    level: LagLevel
    above_seconds: float
    action: str


LEVELS = (
    LagThreshold(
        LagLevel.EMERGENCY, 30.0, 'Show changes as "being processed"; commands are throttled until it has caught up.'
    ),
    LagThreshold(LagLevel.CRITICAL, 2.0, "Page an engineer; find what the projector waits for, or add projectors."),
    LagThreshold(LagLevel.WARNING, 0.2, "Check the projector: its log, its load and that of its store."),
)
NORMAL = LagThreshold(LagLevel.NORMAL, 0.0, "None.")
EMERGENCY_SECONDS = LEVELS[0].above_seconds


def level_of(lag_seconds: float) -> LagThreshold:
    """The level of a lag."""
    return next((threshold for threshold in LEVELS if lag_seconds > threshold.above_seconds), NORMAL)


MAX_HEADS = 600  # read once to four times a second: of a log that grows all the time, two minutes or more


class HeadHistory:
    """When this process first saw which position at the head of the log; the last `MAX_HEADS` of them.

    An event is at least as old as that, whatever the clocks of the servers say.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=MAX_HEADS)  # times of `monotonic`, and positions

    def add(self, head: int, now: float) -> None:
        if self._seen and head < self._seen[-1][1]:  # a restored log
            self._seen.clear()
        if not self._seen or head > self._seen[-1][1]:
            self._seen.append((now, head))

    def least_age(self, position: int, now: float) -> float:
        """Seconds since there was first seen to be an event after that position; 0.0 when none was seen."""
        return next((now - at for at, head in self._seen if head > position), 0.0)
