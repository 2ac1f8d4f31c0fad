"""What-if replays: fold a function of the user's own over history. Reads the log only, writes nothing."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from cli.failure import BadArgument
from cli.history.log_snapshot import ReplayFailed, log_snapshot
from shared.errors import Corrupt
from shared.eventstore import codec
from shared.eventstore import log as event_log
from shared.eventstore.log import Connection, StoredEvent

_SHOW_EVERY = 1_000  # events between two updates of the progress bar
_LAST_LINES = 12  # of a traceback


class PastEvent(NamedTuple):
    """What a projection function gets for each event, in the order of `position`."""

    position: int  # 1, 2, 3 … within the log
    stream_id: str  # `order-<order id>`
    version: int  # 1, 2, 3 … within the stream
    occurred_at: datetime  # business time, UTC
    recorded_at: datetime  # the log's clock when the event was appended, UTC; never decreases
    event_type: str  # such as `OrderPlaced`
    event: Any  # an object of `shared.aggregates`, in today's shape whenever it was written
    metadata: dict[str, Any]  # command_id, command, correlation_id, causation_id, …


Function: TypeAlias = Callable[[Any, PastEvent], Any]
Bound: TypeAlias = int | datetime | None  # a position, or the time of recording


class BadProjection(BadArgument):
    """MODULE:FUNCTION does not name a function that can be called; the message says why."""


def load_function(name: str) -> Function:
    """The function that `MODULE:FUNCTION` names, imported from the current directory. Raises BadProjection."""
    module_name, colon, function_name = name.partition(":")
    if not (colon and module_name and function_name):
        raise BadProjection(f"{name!r} should be MODULE:FUNCTION, such as discount:revenue_by_month")
    sys.path.insert(0, str(Path.cwd()))
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(error.name + ".")):
            raise BadProjection(f"there is no module {module_name!r} in {Path.cwd()}") from error
        raise BadProjection(_failed_import(module_name, error)) from error
    except Exception as error:  # the module is the user's own
        raise BadProjection(_failed_import(module_name, error)) from error
    function = getattr(module, function_name, None)
    if not callable(function):
        what = "is not a function" if function is not None else "is not there"
        raise BadProjection(f"{function_name} {what} in module {module_name!r} ({module.__file__})")
    return function  # type: ignore[no-any-return]  # the user's function has any signature


def _failed_import(module_name: str, error: Exception) -> str:
    return f"module {module_name!r} cannot be imported\n{_last_lines(error)}"


async def fold_history(url: str, function: Function, start: Bound = None, end: Bound = None) -> Any:
    """The state after the events from `start` to `end`, both included; a time means when they were recorded.

    Reads one snapshot of the log, with one page of events in memory at a time. Raises NoHistory, ReplayFailed.
    """
    state: Any = None
    async with log_snapshot(url) as (connection, head):
        first = await _first(connection, start, head.position)
        last = await _last(connection, end, head.position)
        with _progress(total=max(0, last - first + 1)) as advance:
            async for event in _events(connection, first, last):
                state = _step(function, state, event)
                advance()
    return state


async def _first(connection: Connection, start: Bound, head: int) -> int:
    if isinstance(start, datetime):
        return await event_log.position_at(connection, start, head, inclusive=False) + 1
    return start or 1


async def _last(connection: Connection, end: Bound, head: int) -> int:
    if isinstance(end, datetime):
        return await event_log.position_at(connection, end, head, inclusive=True)
    return head if end is None else min(end, head)


async def _events(connection: Connection, first: int, last: int) -> AsyncIterator[StoredEvent]:
    async for event in event_log.read_all(connection, after=first - 1):
        if event.position > last:
            return
        yield event


def _step(function: Function, state: Any, stored: StoredEvent) -> Any:
    try:
        event = PastEvent(
            stored.position,
            stored.stream_id,
            stored.version,
            stored.occurred_at,
            stored.recorded_at,
            stored.event_type,
            codec.decode(stored.event_type, stored.schema_version, stored.data),
            msgspec.json.decode(stored.metadata, type=dict[str, Any]),
        )
    except (Corrupt, msgspec.DecodeError) as error:
        raise ReplayFailed(f"stopped at position {stored.position}: {error}") from error
    try:
        return function(state, event)
    except Exception as error:  # the function is the user's own
        where = f"position {stored.position} ({stored.event_type} of {stored.stream_id})"
        raise ReplayFailed(f"the projection failed at {where}\n{_last_lines(error)}") from error


@contextmanager
def _progress(total: int) -> Iterator[Callable[[], None]]:
    """Draws a bar on a terminal; yields a function to call once per event."""
    console = Console(stderr=True)
    columns = TextColumn("replaying"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task("", total=total)
        done = 0

        def advance() -> None:
            nonlocal done
            done += 1
            if done % _SHOW_EVERY == 0:
                progress.update(task, completed=done)

        yield advance


def _last_lines(error: Exception) -> str:
    """The end of its traceback, from the user's own code on."""
    own = error.__traceback__.tb_next if error.__traceback__ else None
    lines = "".join(traceback.format_exception(type(error), error, own or error.__traceback__)).rstrip().splitlines()
    return "\n".join(lines[-_LAST_LINES:])


def as_json(state: Any) -> str:
    """Raises ReplayFailed when it cannot be JSON."""
    try:
        return msgspec.json.format(msgspec.json.encode(msgspec.to_builtins(state, str_keys=True))).decode()
    except (TypeError, ValueError, RecursionError, OverflowError) as error:
        raise ReplayFailed(f"the final state cannot be written as JSON: {error}") from error
