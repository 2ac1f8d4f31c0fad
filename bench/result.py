"""A measure in the table: its figures, those of its baseline, and its goal."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

CLIENT_SATURATED = 0.9  # of a core


class Goal(msgspec.Struct, frozen=True):
    """A bound on the ratio, or on the median itself."""

    bound: Literal["at least", "at most"]
    limit: float
    of: Literal["ratio", "value"] = "ratio"

    def share(self, figure: float) -> float:
        """Returns the reached share of the goal; 1 and more: reached."""
        if self.bound == "at least":
            return figure / self.limit
        return self.limit / figure if figure else float("inf")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One measure. Each round measures both sides, so `ours` and `theirs` hold one figure per round."""

    row: int
    label: str  # a few words; identifies the measure within its row
    measure: str
    unit: str
    ours: list[float]
    against: str | None = None
    theirs: list[float] = []
    goal: Goal | None = None
    n: int = 0  # operations measured in all rounds
    client_cpu: float | None = None  # cores used by the load client, maximum over the rounds
    notes: list[str] = []
    curve: dict[str, float] = {}  # points of a plot

    @property
    def value(self) -> float:
        return statistics.median(self.ours)

    @property
    def spread(self) -> tuple[float, float]:
        return min(self.ours), max(self.ours)

    @property
    def client_saturated(self) -> bool:
        """Whether the load client may have been the bottleneck."""
        return self.client_cpu is not None and self.client_cpu > CLIENT_SATURATED

    @property
    def less_is_better(self) -> bool:
        """True of times and of space, false of rates."""
        return self.unit in ("ms", "MiB", "bytes")

    @property
    def ratios(self) -> list[float]:
        """One per round, so that a slow phase of the machine affects both sides of a ratio."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float | None:
        return statistics.median(self.ratios) if self.theirs else None

    @property
    def shares(self) -> list[float]:
        """The reached share of the goal in each round; empty without a goal."""
        if self.goal is None:
            return []
        return [self.goal.share(figure) for figure in (self.ratios if self.goal.of == "ratio" else self.ours)]

    @property
    def share(self) -> float | None:
        if self.goal is None:
            return None
        figure = self.ratio if self.goal.of == "ratio" else self.value
        assert figure is not None, "a goal on a ratio needs a baseline"
        return self.goal.share(figure)

    @property
    def reached(self) -> bool | None:
        """None without a goal."""
        return None if self.share is None else self.share >= 1


def record(result: Result) -> dict[str, Any]:
    """Returns the result as JSON, with the values derived from it."""
    return {
        **msgspec.to_builtins(result),
        "value": result.value,
        "spread": result.spread,
        "ratio": result.ratio,
        "share_of_goal": result.share,
        "reached": result.reached,
    }


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the smallest of the values that is not exceeded by at least this share of them."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]
