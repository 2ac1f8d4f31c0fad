"""How far behind is too far: the levels of lag, and what to do at each. Said once, for whoever acts on it."""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple


class LagLevel(StrEnum):
    NORMAL = "normal"
    WARNING = "warning"
    CRITICAL = "critical"
    EMERGENCY = "emergency"


class LagThreshold(NamedTuple):
    """A level begins above so many seconds; `action` is what to do then."""

    level: LagLevel
    above_seconds: float
    action: str


LEVELS = (
    LagThreshold(
        LagLevel.EMERGENCY, 30.0, 'Show orders as "being processed"; commands are throttled until it has caught up.'
    ),
    LagThreshold(LagLevel.CRITICAL, 2.0, "Page someone; find what the projector waits for or add projector workers."),
    LagThreshold(LagLevel.WARNING, 0.2, "Look at the projector: its log, its load and that of its store."),
)
NORMAL = LagThreshold(LagLevel.NORMAL, 0.0, "None.")
EMERGENCY_SECONDS = LEVELS[0].above_seconds


def level_of(lag_seconds: float) -> LagThreshold:
    """How bad a lag is, and what to do about it."""
    return next((bounds for bounds in LEVELS if lag_seconds > bounds.above_seconds), NORMAL)
