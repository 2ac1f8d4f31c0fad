"""How much is measured: enough to trust by default, little to try a change out, or what takes an hour."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cli.stack.embedded_postgres import SHARED_BUFFERS


@dataclass(frozen=True, slots=True)
class Scale:
    name: str
    rounds: int  # of both sides, in turns
    seconds: float  # one side of one round
    warm_up: float  # seconds before that, not counted
    events: int  # in the log that is rebuilt from
    growth: tuple[int, ...]  # sizes of the log that are compared
    remembered: int  # orders placed when memory is looked at again; first it is after 10,000
    invoices: int  # in the month that is imported
    overload: float  # seconds at twice the load
    shared_buffers: str = SHARED_BUFFERS  # of PostgreSQL, for all rows: what holds the largest log

    @property
    def short(self) -> Scale:
        """About as much in more and shorter rounds. The shorter a round, the more alike is the machine for both its
        sides; and the more rounds, the less the median cares about those in which it was not."""
        rounds = max(5, 2 * self.rounds + 1)
        return replace(self, rounds=rounds, seconds=max(1.0, self.seconds / 2), warm_up=self.warm_up / 2)


CHECK = Scale("check", 1, 2.0, 0.7, 60_000, (), 0, 0, 0.0)
QUICK = Scale("quick", 2, 1.5, 0.5, 40_000, (4_000, 40_000), 4_000, 300, 5.0)
NORMAL = Scale("normal", 3, 2.5, 0.8, 1_000_000, (10_000, 100_000, 1_000_000), 30_000, 2_500, 6.0)
FULL = Scale("full", 5, 8.0, 2.0, 1_000_000, (10_000, 100_000, 1_000_000, 10_000_000), 1_000_000, 10_000, 60.0, "6GB")
