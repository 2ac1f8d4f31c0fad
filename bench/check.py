"""`python -m bench.check`: a regression check in two minutes, a short form of rows 1, 3, 4, 6, 14 and 15.

Fails when a row reaches less than 0.7 of its goal, and again less in a second run of five rounds or more.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import replace

from bench.__main__ import ROWS, measures
from bench.runner import Run, argument_parser, measure_rows
from bench.scale import CHECK, Scale

CHECKED = (1, 3, 4, 6, 14, 15)
REQUIRED_SHARE = 0.7  # of a goal

SECOND_RUN = replace(CHECK, rounds=5)  # the median of five ignores two disturbed rounds

MeasureRows = Callable[[list[str], Scale], Run]


def too_slow(run: Run) -> list[str]:
    """The rows that reached less than required, or could not be measured."""
    shares = {
        result.row: result.share for result in run.results if result.share is not None and result.share < REQUIRED_SHARE
    }
    return [*(ROWS[row] for row in shares), *run.failed]


def check(measure_rows: MeasureRows) -> list[str]:
    """Returns the rows that were too slow twice."""
    slow = too_slow(measure_rows([ROWS[row] for row in CHECKED], CHECK))
    if slow:
        print(f"too slow once, measured again: {', '.join(slow)}", file=sys.stderr)
        slow = too_slow(measure_rows(slow, SECOND_RUN))
    return slow


def main() -> int:
    asked = argument_parser("a regression check: a short form of rows 1, 3, 4, 6, 14 and 15").parse_args()
    slow = check(lambda names, scale: measure_rows(measures(names), scale, asked.directory))
    if slow:
        print(f"below {REQUIRED_SHARE:.0%} of the goal, twice: {', '.join(slow)}", file=sys.stderr)
    return 1 if slow else 0


if __name__ == "__main__":
    sys.exit(main())
