"""Two checkouts are measured alternately, and each measure says which way it changed."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from bench.compare import Checkout, compare, units
from bench.load import ROOT
from bench.machine import Machine
from bench.result import Result
from bench.runner import SELECTED, Run, save

MACHINE = Machine("cpu", 2, 4.0, "Linux", "ext4", 1.0, 0.0, {})


def run(*results: Result) -> Run:
    return Run(taken_at=datetime.now(UTC), scale="quick", machine=MACHINE, results=list(results))


def rate(ours: float, theirs: float = 100.0, label: str = "append") -> Result:
    return Result(row=1, label=label, measure="it", unit="events/s", ours=[ours], theirs=[theirs])


def time(ours: float) -> Result:
    return Result(row=5, label="p50", measure="it", unit="ms", ours=[ours])


def test_a_change_is_the_median_over_the_pairs_of_runs() -> None:
    (comparison,) = compare(
        [run(rate(10)), run(rate(10)), run(rate(40))], [run(rate(20)), run(rate(11)), run(rate(36))]
    )
    assert comparison.figure_change == 1.1


def test_a_change_above_one_is_better_also_where_less_is_better() -> None:
    (comparison,) = compare([run(time(5.0))], [run(time(4.0))])
    assert comparison.figure_change == 1.25
    assert comparison.ratio_change is None


def test_the_ratio_to_the_baseline_tells_a_slow_machine_from_a_slow_program() -> None:
    (comparison,) = compare([run(rate(100, 100))], [run(rate(50, 50))])
    assert (comparison.figure_change, comparison.ratio_change) == (0.5, 1.0)


def test_measures_are_matched_by_their_order_in_the_row() -> None:
    comparisons = compare([run(rate(10), rate(5))], [run(rate(10, label="renamed"), rate(6))])
    assert [comparison.figure_change for comparison in comparisons] == [1.0, 1.2]


def test_a_row_that_has_other_measures_is_left_out() -> None:
    (comparison,) = compare([run(rate(10), time(5))], [run(rate(10), rate(9), time(5))])
    assert comparison.after == [time(5)]


def test_a_row_that_one_run_could_not_measure_is_compared_in_the_others() -> None:
    (comparison,) = compare([run(rate(10)), run(rate(10))], [run(), run(rate(12))])
    assert comparison.figure_change == 1.2


def test_rows_that_need_the_same_log_are_measured_by_one_process() -> None:
    assert units([6, 1, 7, 3]) == [[1], [3], [7, 6]]
    assert units([3, 6]) == [[3], [6]]


@pytest.fixture
def other_checkout(tmp_path: Path) -> Path:
    """Its interpreter prints rows of its own, and keeps a copy of a run as the results."""
    save(run(rate(10)), tmp_path / "run.json")
    results = tmp_path / SELECTED.relative_to(ROOT)
    results.parent.mkdir(parents=True)
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(
        f"""#!/bin/sh
        case "$1" in
            -c) echo '{{"1": "append", "3": "orders"}}' ;;
            -m) echo "$*" > asked; [ "$5" = orders ] || cp run.json {results}; exit 1 ;;
        esac
        """
    )
    python.chmod(0o755)
    return tmp_path


@pytest.mark.subprocess
def test_rows_of_another_checkout_are_measured_by_its_own_program(other_checkout: Path) -> None:
    checkout = Checkout(other_checkout)
    assert checkout.rows() == {1: "append", 3: "orders"}
    assert checkout.measure(["append"], "quick").results == [rate(10)]
    assert (other_checkout / "asked").read_text() == "-m bench --quick --only append\n"


@pytest.mark.subprocess
def test_a_bench_that_ended_without_results_is_an_error(other_checkout: Path) -> None:
    checkout = Checkout(other_checkout)
    checkout.measure(["append"], "quick")
    with pytest.raises(FileNotFoundError):
        checkout.measure(["orders"], "quick")
