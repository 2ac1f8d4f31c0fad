"""`python -m bench.check`: has something become slow? Rows 1, 3, 4 and 6, little of each, in a minute.

Fails where less than 0.7 of a goal was reached, and again less on a second try, in five rounds or more: machines are
noisy.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

from bench.__main__ import ROWS, measures
from bench.runner import Run, arguments, take
from bench.scale import CHECK, Scale

CHECKED = (1, 3, 4, 6)
ENOUGH = 0.7  # of a goal

AGAIN = replace(CHECK, rounds=5)  # hiccups of the machine spoil one or two rounds, and the median counts

Take = Callable[[list[str], Scale], Run]


def too_slow(run: Run) -> list[str]:
    """The rows that did not reach enough, or could not be measured."""
    shares = {result.row: result.share for result in run.results if result.share is not None and result.share < ENOUGH}
    return [*(ROWS[row] for row in shares), *run.failed]


def check(take: Take) -> list[str]:
    """The rows that were too slow twice."""
    slow = too_slow(take([ROWS[row] for row in CHECKED], CHECK))
    if slow:
        print(f"once more, because machines are noisy: {', '.join(slow)}", file=sys.stderr)
        slow = too_slow(take(slow, AGAIN))
    return slow


def main() -> int:
    asked = arguments("rows 1, 3, 4 and 6, little of each").parse_args()
    slow = check(lambda names, scale: take(measures(names), scale, asked.directory))
    if slow:
        print(f"below {ENOUGH:.0%} of the goal, twice: {', '.join(slow)}", file=sys.stderr)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
