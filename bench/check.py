"""`python -m bench.check`: has something become slow? Rows 1, 3, 4 and 6, little of each, in a minute.

Fails where less than 0.7 of a goal was reached, and again in each of five rounds on a second try: machines are noisy,
but what has become slow is slow in every round.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace
from statistics import median

from bench.__main__ import ROWS, measures
from bench.run import Run, arguments, take
from bench.scale import CHECK, Scale

CHECKED = (1, 3, 4, 6)
ENOUGH = 0.7  # of a goal

AGAIN = replace(CHECK, rounds=5)

Take = Callable[[list[str], Scale], Run]


def too_slow(run: Run, share: Callable[[list[float]], float]) -> list[str]:
    """The rows whose `share` of the goal, of those of all rounds, is not enough, or that could not be measured."""
    rows = {result.row: None for result in run.results if result.shares and share(result.shares) < ENOUGH}
    return [*(ROWS[row] for row in rows), *run.failed]


def check(take: Take) -> list[str]:
    """The rows that were too slow twice."""
    slow = too_slow(take([ROWS[row] for row in CHECKED], CHECK), median)
    if slow:
        print(f"once more, because machines are noisy: {', '.join(slow)}", file=sys.stderr)
        slow = too_slow(take(slow, AGAIN), max)
    return slow


def main() -> int:
    asked = arguments("rows 1, 3, 4 and 6, little of each").parse_args()
    slow = check(lambda names, scale: take(measures(names), scale, asked.directory))
    if slow:
        print(f"below {ENOUGH:.0%} of the goal, twice: {', '.join(slow)}", file=sys.stderr)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
