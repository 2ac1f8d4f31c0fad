"""Failpoints do nothing unless they are armed, and then the actions they were armed with, one after the other."""

from __future__ import annotations

import subprocess
import sys
from signal import SIGKILL

import pytest

from shared.failpoints import FailpointError, armed, failpoint, parse


def test_a_failpoint_that_is_not_armed_does_nothing() -> None:
    failpoint("log.read")
    failpoint("log.read", "orders")


def test_an_armed_failpoint_performs_its_action_within_the_block_only() -> None:
    passed: list[str] = []
    with armed("log.read", lambda: passed.append("log.read")):
        failpoint("log.read")
        failpoint("log.read", "orders")
        failpoint("log.written")
    failpoint("log.read")
    assert passed == ["log.read", "log.read"]


def test_a_scope_narrows_a_failpoint() -> None:
    with armed("log.read:orders", parse("x=error")["x"]):
        failpoint("log.read")
        failpoint("log.read", "revenue")
        with pytest.raises(FailpointError):
            failpoint("log.read", "orders")


def test_tasks_with_a_count_follow_each_other() -> None:
    with armed("log.read", parse("log.read=2*off->1*error->sleep(0.1)")["log.read"]):
        failpoint("log.read")
        failpoint("log.read")
        with pytest.raises(FailpointError):
            failpoint("log.read")
        failpoint("log.read")


def test_several_failpoints_are_given_at_once() -> None:
    assert parse("a=off;b:c=1*kill").keys() == {"a", "b:c"}


@pytest.mark.parametrize("text", ["a", "a=", "a=explode", "a=1*", "a=sleep"])
def test_what_is_no_task_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no task"):
        parse(text)


@pytest.mark.subprocess
def test_the_environment_arms_a_process_when_it_starts() -> None:
    program = "from shared.failpoints import failpoint; [failpoint('a') or print(n, flush=True) for n in range(3)]"
    run = subprocess.run(
        [sys.executable, "-c", program],
        check=False,
        env={"FAILPOINTS": "a=2*off->kill"},
        capture_output=True,
        text=True,
    )
    assert (run.returncode, run.stdout) == (-SIGKILL, "0\n1\n")
