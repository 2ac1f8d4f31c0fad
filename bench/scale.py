"""How much is measured: minutes (`quick`), ten minutes (`normal`) or more than an hour (`full`)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from cli.stack.embedded_postgres import SHARED_BUFFERS


@dataclass(frozen=True, slots=True)
class Scale:
    name: str
    rounds: int  # of each side, interleaved
    seconds: float  # of one side in one round
    warm_up: float  # seconds before that, not counted
    events: int  # in the log of the rebuild
    growth: tuple[int, ...]  # log sizes to compare, in events
    memory_orders: int  # orders placed before memory is measured again
    invoices: int  # in the imported month
    overload: float  # seconds at twice the capacity
    shared_buffers: str = SHARED_BUFFERS  # of PostgreSQL, in all rows; holds the largest log

    @property
    def short(self) -> Scale:
        """About the same total in more and shorter rounds. The speed of a shared machine changes within seconds: a
        short round gives both sides the same speed, and the median of many rounds ignores those in which it changed."""
        rounds = max(5, 2 * self.rounds + 1)
        return replace(self, rounds=rounds, seconds=max(1.0, self.seconds / 2), warm_up=self.warm_up / 2)


CHECK = Scale("check", 1, 2.0, 0.7, 60_000, (), 0, 0, 0.0)
QUICK = Scale("quick", 2, 1.5, 0.5, 40_000, (4_000, 40_000), 4_000, 300, 5.0)
NORMAL = Scale("normal", 3, 2.5, 0.8, 1_000_000, (10_000, 100_000, 1_000_000), 30_000, 2_500, 6.0)
FULL = Scale("full", 5, 8.0, 2.0, 1_000_000, (10_000, 100_000, 1_000_000, 10_000_000), 1_000_000, 10_000, 60.0, "6GB")
