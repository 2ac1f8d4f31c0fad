"""`python -m bench`: measures the whole table. Writes `bench/results/`, the tables and plots of `docs/performance.md`,
and the tables of `docs/scaling.md`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from importlib import import_module

from bench import pages, plots
from bench.runner import LATEST, SCALES, SELECTED, Measure, argument_parser, measure_rows, save

# In the order in which they are measured: short ones first, before large logs fill the caches of the machine.
ROWS = {
    1: "append",
    2: "eventsourcing_append",
    15: "several_streams",
    3: "place_order",
    4: "read_order",
    5: "read_your_writes",
    8: "snapshot_load",
    9: "hot_stream_neighbours",
    14: "hot_stream",
    16: "reserve_stock",
    11: "process_scaling",
    12: "import_month",
    13: "overload",
    10: "memory",
    7: "log_growth",
    6: "rebuild",
}


def measures(names: list[str]) -> Mapping[str, Measure]:
    return {name: import_module(f"bench.{name}").measure for name in names}


def main() -> int:
    parser = argument_parser("measures the whole table")
    parser.add_argument("--only", nargs="+", choices=ROWS.values(), metavar="ROW", help=", ".join(ROWS.values()))
    asked = parser.parse_args()
    run = measure_rows(measures(asked.only or list(ROWS.values())), SCALES[asked.scale], asked.directory)
    save(run, SELECTED if asked.only else LATEST)
    if not asked.only:
        plots.draw(run)
        pages.write(run)
    return 0 if run.reached else 1


if __name__ == "__main__":
    sys.exit(main())
