"""What a row of the table says: what was measured, against what, and whether the goal was reached."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any, Literal

import msgspec


class Goal(msgspec.Struct, frozen=True):
    """A bound on the ratio, or on the median itself."""

    bound: Literal["at least", "at most"]
    limit: float
    of: Literal["ratio", "value"] = "ratio"

    def share(self, figure: float) -> float:
        """How much of the goal was reached; 1 and more is all of it."""
        if self.bound == "at least":
            return figure / self.limit
        return self.limit / figure if figure else float("inf")


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """One measure. Each round measured both sides, one right after the other; `ours` and `theirs` hold one figure each
    a round."""

    row: int
    label: str  # a few words, for a plot
    measure: str
    unit: str
    ours: list[float]
    against: str | None = None
    theirs: list[float] = []
    goal: Goal | None = None
    n: int = 0  # operations measured, all rounds together
    client_cpu: float | None = None  # of the load client: the share of one core it took, at most
    notes: list[str] = []
    curve: dict[str, float] = {}  # further points, for a plot

    @property
    def value(self) -> float:
        return statistics.median(self.ours)

    @property
    def spread(self) -> tuple[float, float]:
        return min(self.ours), max(self.ours)

    @property
    def less_is_better(self) -> bool:
        """True of times and of space, false of rates."""
        return self.unit in ("ms", "MiB", "bytes")

    @property
    def ratios(self) -> list[float]:
        """Of each round, so that a machine that slows down slows both sides down."""
        return [ours / theirs for ours, theirs in zip(self.ours, self.theirs, strict=True)]

    @property
    def ratio(self) -> float | None:
        return statistics.median(self.ratios) if self.theirs else None

    @property
    def shares(self) -> list[float]:
        """Of the goal, each round; empty without a goal."""
        if self.goal is None:
            return []
        return [self.goal.share(figure) for figure in (self.ratios if self.goal.of == "ratio" else self.ours)]

    @property
    def share(self) -> float | None:
        if self.goal is None:
            return None
        figure = self.ratio if self.goal.of == "ratio" else self.value
        assert figure is not None, "a goal on a ratio comes with something to compare with"
        return self.goal.share(figure)

    @property
    def reached(self) -> bool | None:
        """None: there is no goal."""
        return None if self.share is None else self.share >= 1


def record(result: Result) -> dict[str, Any]:
    """As JSON: what was measured, and what follows from it."""
    return {
        **msgspec.to_builtins(result),
        "value": result.value,
        "spread": result.spread,
        "ratio": result.ratio,
        "share_of_goal": result.share,
        "reached": result.reached,
    }


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least this share of them does not exceed."""
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]
