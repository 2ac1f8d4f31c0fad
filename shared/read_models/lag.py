"""The levels of lag and the action that each recommends, for every process that reports or limits lag."""

from __future__ import annotations

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
