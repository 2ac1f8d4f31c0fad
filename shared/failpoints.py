"""Failpoints: named moments at which a test makes a process die, pause, fail or slow down.

They are for tests only. They do nothing unless `FAILPOINTS` names them when the process starts:

    FAILPOINTS="projection.applied:orders=1*off->kill;command.deciding=sleep(5)"

The grammar is a part of that of TiKV's fail-rs: `NAME[:SCOPE]=[COUNT*]TASK[(ARGUMENT)][->...]`. A task with a count
applies that many times, then the next task does. Tasks: `off` does nothing, `sleep(MILLISECONDS)` blocks the event
loop, `error` raises `FailpointError`, `pause` stops the process with SIGSTOP, `kill` ends it with SIGKILL.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import chain, repeat
from typing import TypeAlias

Action: TypeAlias = Callable[[], object]

_TASK = re.compile(r"(?:(?P<count>\d+)\*)?(?P<task>off|error|pause|kill|sleep\((?P<milliseconds>[\d.]+)\))")
_armed: dict[str, Action] = {}


class FailpointError(Exception):
    """Raised by the task `error`."""


def failpoint(name: str, scope: str = "") -> None:
    """Marks a moment. `scope` tells apart what passes it side by side, such as projections."""
    if _armed and (action := _armed.get(name) or _armed.get(f"{name}:{scope}")) is not None:
        action()


@contextmanager
def armed(name: str, action: Action) -> Iterator[None]:
    """Performs the action, in this process, whenever the block passes the failpoint `NAME` or `NAME:SCOPE`."""
    _armed[name] = action
    try:
        yield
    finally:
        del _armed[name]


def parse(text: str) -> dict[str, Action]:
    """The actions of each failpoint that `FAILPOINTS` names. Raises `ValueError`."""
    entries = (entry.partition("=") for entry in text.split(";") if entry)
    return {name: _one_by_one(tasks) for name, _, tasks in entries}


def _one_by_one(tasks: str) -> Action:
    actions = chain(*map(_repeated, tasks.split("->")))
    return partial(_perform_next, actions)


def _perform_next(actions: Iterator[Action]) -> None:
    next(actions, _off)()


def _repeated(text: str) -> Iterator[Action]:
    if (match := _TASK.fullmatch(text)) is None:
        raise ValueError(f"FAILPOINTS: {text!r} is no task")
    action = _action(match["task"], match["milliseconds"])
    return repeat(action) if match["count"] is None else repeat(action, int(match["count"]))


def _action(task: str, milliseconds: str | None) -> Action:
    match task:
        case "off":
            return _off
        case "error":
            return _error
        case "pause":
            return partial(signal.raise_signal, signal.SIGSTOP)
        case "kill":
            return partial(signal.raise_signal, signal.SIGKILL)
        case _:
            return partial(time.sleep, float(milliseconds or 0) / 1_000)


def _off() -> None:
    pass


def _error() -> None:
    raise FailpointError


_armed.update(parse(os.environ.get("FAILPOINTS", "")))
