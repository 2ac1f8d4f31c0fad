"""What a result says, and when the regression check fails."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from bench import check
from bench.machine import Machine
from bench.result import Goal, Result, percentile, record
from bench.runner import Run
from bench.scale import Scale

MACHINE = Machine("cpu", 2, 4.0, "Linux", "ext4", 1.0, 0.0, {})


def result(ours: list[float], theirs: list[float], goal: Goal | None, row: int = 3) -> Result:
    return Result(row=row, label="it", measure="it", unit="requests/s", ours=ours, theirs=theirs, goal=goal)


def run(**shares: float) -> Run:
    """A run in which those rows reached such a share of their goal."""
    rows = {"append": 1, "place_order": 3, "read_order": 4, "rebuild": 6, "hot_stream": 14, "several_streams": 15}
    results = [result([share], [1.0], Goal("at least", 1.0), rows[name]) for name, share in shares.items()]
    return Run(taken_at=datetime.now(UTC), scale="check", machine=MACHINE, results=results)


def test_the_ratio_is_the_median_of_the_rounds() -> None:
    """The machine was slow in the last round; both sides were."""
    one = result([110.0, 90.0, 10.0], [100.0, 100.0, 10.0], Goal("at least", 1.0))
    assert one.ratio == 1.0
    assert one.reached


def test_goals_bound_from_below_and_from_above() -> None:
    assert result([50.0], [100.0], Goal("at least", 0.5)).share == 1.0
    assert result([150.0], [100.0], Goal("at most", 1.5)).share == 1.0
    assert result([30.0], [], Goal("at most", 15.0, "value")).share == 0.5
    assert result([1.0], [], None).reached is None


def test_a_record_says_what_follows() -> None:
    said = record(result([50.0], [100.0], Goal("at least", 1.0)))
    assert (said["ratio"], said["share_of_goal"], said["reached"]) == (0.5, 0.5, False)


@pytest.mark.parametrize(("share", "expected"), [(0.01, 1), (0.5, 50), (0.99, 99), (0.999, 100)])
def test_a_percentile_is_a_value_that_was_measured(share: float, expected: int) -> None:
    assert percentile(range(1, 101), share) == expected


def test_what_was_slow_once_is_tried_again_alone_and_in_more_rounds() -> None:
    asked: list[tuple[list[str], int]] = []

    def take(names: list[str], scale: Scale) -> Run:
        asked.append((names, scale.rounds))
        return (
            run(append=1.0, place_order=0.69, read_order=0.7, rebuild=1.0, hot_stream=1.0, several_streams=2.0)
            if len(asked) == 1
            else run(place_order=0.9)
        )

    assert check.check(take) == []
    names = ["append", "place_order", "read_order", "rebuild", "hot_stream", "several_streams"]
    assert asked == [(names, 1), (["place_order"], 5)]


def test_what_was_slow_twice_fails() -> None:
    slow = check.check(lambda names, _: run(**dict.fromkeys(names, 0.69)))
    assert sorted(slow) == ["append", "hot_stream", "place_order", "read_order", "rebuild", "several_streams"]
