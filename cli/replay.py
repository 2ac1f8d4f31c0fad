"""`orders replay`: the life of one order, or a function of one's own over all of history."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from pydantic import TypeAdapter, ValidationError

from cli.history.log_snapshot import NoHistory, ReplayFailed, history_url
from cli.history.timeline import lived, print_life
from cli.history.what_if import BadProjection, Bound, as_json, load_function, replay
from query_service.point_in_time import CLOCK_TOLERANCE, PointInTime
from shared.http.fields import Rfc3339

_RFC3339 = TypeAdapter[datetime](Rfc3339)


def replay_command(
    order_id: Annotated[str | None, typer.Argument(help="The order to show.")] = None,
    as_of: Annotated[
        str | None, typer.Option(metavar="TIME", help="With ORDER_ID: only what had occurred by then.")
    ] = None,
    known_at: Annotated[
        str | None, typer.Option(metavar="TIME", help="With ORDER_ID: only what had been recorded by then.")
    ] = None,
    projection: Annotated[
        str | None,
        typer.Option(
            metavar="MODULE:FUNCTION",
            help="Fold (state, event) -> state over history instead; found from the current directory.",
        ),
    ] = None,
    start: Annotated[
        str | None,
        typer.Option("--from", metavar="POSITION|TIME", help="With --projection: first event; a time: recorded since."),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option("--to", metavar="POSITION|TIME", help="With --projection: last event; a time: recorded by then."),
    ] = None,
    database_url: Annotated[
        str | None,
        typer.Option(
            envvar="AUDITOR_DATABASE_URL", metavar="URL", help="Default: DATABASE_URL, else the running stack's."
        ),
    ] = None,
    data_dir: Annotated[Path, typer.Option(help="Data directory of the running stack.")] = Path(".orders"),
) -> None:
    """Show the life of one order, or fold a function of your own over all of history.

    With ORDER_ID: a row for each event, with what it changed. With --projection: the final state as JSON; what the
    function gets is described in docs/time-travel.md. Nothing is written anywhere. Times are RFC 3339.

    Exit code 0: done. 1: no such order, or the replay stopped at an event. 2: the arguments make no sense.
    """
    if (order_id is None) == (projection is None):
        _fail("give either an ORDER_ID or --projection MODULE:FUNCTION", code=2)
    with _failures():
        if order_id is not None:
            _refuse("--projection", **{"--from": start, "--to": end})
            moment = PointInTime(_past_time("--as-of", as_of), _past_time("--known-at", known_at))
            _show_life(order_id, moment, history_url(database_url, data_dir))
        elif projection is not None:
            _refuse("ORDER_ID", **{"--as-of": as_of, "--known-at": known_at})
            bounds = _bound("--from", start), _bound("--to", end)
            _show_state(projection, *bounds, database_url, data_dir)


def _show_life(order_id: str, moment: PointInTime, url: str) -> None:
    life = asyncio.run(lived(url, order_id, moment))
    if not life:
        when = str(moment)
        _fail(f"there was no order {order_id!r} {when}" if when else f"there is no order {order_id!r}", code=1)
    print_life(order_id, moment, life)


def _show_state(projection: str, start: Bound, end: Bound, given: str | None, data_dir: Path) -> None:
    function = load_function(projection)
    state = asyncio.run(replay(history_url(given, data_dir), function, start, end))
    sys.stdout.write(as_json(state) + "\n")


def _bound(option: str, text: str | None) -> Bound:
    """A position from 1 on, a time, or None."""
    if text is not None and text.isdecimal() and text.isascii():
        if not 1 <= int(text) < 2**63:
            _fail(f"{option}: positions begin at 1", code=2)
        return int(text)
    return _time(option, text, "a position or ")


def _past_time(option: str, text: str | None) -> datetime | None:
    time = _time(option, text)
    if time is not None and time > datetime.now(UTC) + CLOCK_TOLERANCE:
        _fail(f"{option}: {text} is in the future", code=2)
    return time


def _time(option: str, text: str | None, otherwise: str = "") -> datetime | None:
    try:
        return None if text is None else _RFC3339.validate_python(text)
    except ValidationError:
        _fail(f"{option}: {text!r} is not {otherwise}an RFC 3339 time with an offset, such as 2026-01-31T14:30:00Z", 2)


def _refuse(belongs_to: str, **options: str | None) -> None:
    for option, value in options.items():
        if value is not None:
            _fail(f"{option} goes with {belongs_to}", code=2)


@contextmanager
def _failures() -> Iterator[None]:
    """Ends with a sentence and the exit code that fits."""
    try:
        yield
    except BadProjection as error:
        _fail(str(error), code=2)
    except (NoHistory, ReplayFailed) as error:
        _fail(str(error), code=1)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"orders: {message}", err=True)
    raise typer.Exit(code)
