"""`python -m bench.compare CHECKOUT`: measures rows of another checkout and of this one, alternately.

The other checkout needs an environment of its own with the extra `bench` (`make bench ARGS=--help` makes it). Rows are
matched by number, because their modules may have other names there. Rows that only one checkout has are skipped.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from bench.__main__ import ROWS
from bench.interleave import interleave
from bench.load import ROOT
from bench.result import Result
from bench.runner import SCALES, SELECTED, Run, load

# One process measures both, because filling their log of a million events takes minutes.
SHARED_LOG = (7, 6)

HEAD = """\
| # | measure | before | after | figure, after / before | ratio to the baseline, after / before |
|---|---|---|---|---|---|"""
_PRINT_ROWS = "import json; from bench.__main__ import ROWS; print(json.dumps(ROWS))"


class Checkout:
    """A working tree with its environment."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory.resolve()
        self._python = self._directory / ".venv" / "bin" / "python"

    def rows(self) -> dict[int, str]:
        """Module names by row number."""
        printed = subprocess.run(
            [self._python, "-c", _PRINT_ROWS], cwd=self._directory, check=True, capture_output=True, text=True
        ).stdout
        return {int(row): name for row, name in json.loads(printed).items()}

    def measure(self, modules: Sequence[str], scale: str) -> Run:
        """Raises FileNotFoundError when the bench ended without results."""
        results = self._directory / SELECTED.relative_to(ROOT)
        results.unlink(missing_ok=True)
        options = [] if scale == "normal" else [f"--{scale}"]
        # Not checked: the exit code says whether every goal was reached.
        subprocess.run([self._python, "-m", "bench", *options, "--only", *modules], cwd=self._directory, check=False)
        return load(results)


@dataclass(frozen=True, slots=True)
class Comparison:
    """One measure: a result of each checkout for each pair of runs."""

    before: list[Result]
    after: list[Result]

    @property
    def figure_change(self) -> float:
        """After / before of the absolute figures, the median over the pairs; above 1 is better, whatever the unit."""
        return self._change([each.value for each in self.before], [each.value for each in self.after])

    @property
    def ratio_change(self) -> float | None:
        """The same of the ratios to the baselines; None for a measure without a baseline."""
        before, after = _ratios(self.before), _ratios(self.after)
        return self._change(before, after) if before and after else None

    def _change(self, before: list[float], after: list[float]) -> float:
        change = statistics.median(now / then for then, now in zip(before, after, strict=True))
        return 1 / change if self.after[0].less_is_better else change

    def line(self) -> str:
        """A row of the table whose head is `HEAD`."""
        last = self.after[-1]
        ratio_change = "" if self.ratio_change is None else f"{self.ratio_change:.2f}"
        cells = [str(last.row), last.label, _cell(self.before), _cell(self.after), f"{self.figure_change:.2f}"]
        return f"| {' | '.join([*cells, ratio_change])} |"


def compare(before: Sequence[Run], after: Sequence[Run]) -> list[Comparison]:
    """Pairs of runs, in order. Matches the measures of a row by their order, because their names may differ. Skips a
    row where the two runs of a pair have different numbers of measures."""
    comparisons: dict[tuple[int, int], Comparison] = {}
    for earlier, later in zip(before, after, strict=True):
        for row in sorted({result.row for result in later.results}):
            sides = [[result for result in run.results if result.row == row] for run in (earlier, later)]
            if len(sides[0]) == len(sides[1]):
                for number, (one, other) in enumerate(zip(*sides, strict=True)):
                    comparison = comparisons.setdefault((row, number), Comparison([], []))
                    comparison.before.append(one)
                    comparison.after.append(other)
    return list(comparisons.values())


def units(rows: Iterable[int]) -> list[list[int]]:
    """The rows in the order of the table, those in one list that one process measures."""
    asked = [row for row in ROWS if row in set(rows)]
    shared = [row for row in asked if row in SHARED_LOG]
    return [*([row] for row in asked if row not in SHARED_LOG), *([shared] if shared else [])]


def _ratios(results: list[Result]) -> list[float]:
    return [result.ratio for result in results if result.ratio is not None]


def _cell(results: list[Result]) -> str:
    text = f"{statistics.median(result.value for result in results):,.4g} {results[0].unit}"
    return f"{text}, {statistics.median(ratios):.2f}×" if (ratios := _ratios(results)) else text


def main() -> None:
    parser = argparse.ArgumentParser(description="compares this checkout with another one")
    parser.add_argument("checkout", type=Path, help="the one before")
    parser.add_argument("--rows", nargs="+", type=int, choices=sorted(ROWS), metavar="NUMBER", help="default: all")
    parser.add_argument("--runs", type=int, default=3, help="of each checkout; default: %(default)s")
    parser.add_argument("--scale", choices=SCALES, default="normal")
    asked = parser.parse_args()
    earlier, current = Checkout(asked.checkout), Checkout(ROOT)
    modules = earlier.rows()
    print(HEAD, flush=True)
    for unit in units(asked.rows or ROWS):
        common = [row for row in unit if row in modules]
        if not common:
            continue
        try:
            before, after = interleave(
                asked.runs,
                partial(earlier.measure, [modules[row] for row in common], asked.scale),
                partial(current.measure, [ROWS[row] for row in common], asked.scale),
            )
        except FileNotFoundError as error:
            print(f"rows {common} could not be measured: {error}", file=sys.stderr)
            continue
        for comparison in compare(before, after):
            print(comparison.line(), flush=True)


if __name__ == "__main__":
    main()
