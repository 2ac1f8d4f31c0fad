"""`orders replay`: the timeline of one aggregate, or a function of the user's own over all of history."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from cli.failure import BadArgument, CommandFailed
from cli.options import AuditorDatabaseUrl, DataDir, Json

if TYPE_CHECKING:
    from cli.history.what_if import Bound
    from query_service.point_in_time import PointInTime


def replay(
    order_id: Annotated[
        str | None,
        typer.Argument(metavar="[ORDER_ID]", help="The order to show, or a stream of any aggregate by its name."),
    ] = None,
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
    database_url: AuditorDatabaseUrl = None,
    data_dir: DataDir = None,
    *,
    json: Json = False,
) -> None:
    """Show the timeline of one order or stream, or fold a function of your own over all of history.

    With ORDER_ID: a row for each event, with what it changed. With --projection: the final state as JSON; what the
    function gets is described in docs/time-travel.md. Nothing is written anywhere. Times are RFC 3339.

    Exit code 0: done. 1: no such stream, or the replay stopped at an event. 2: the arguments make no sense.
    """
    from cli.stack.addresses import find_database
    from query_service.point_in_time import PointInTime

    if (order_id is None) == (projection is None):
        raise BadArgument("give either an ORDER_ID or --projection MODULE:FUNCTION")
    if order_id is not None:
        _refuse("--projection", **{"--from": start, "--to": end})
        point = PointInTime(_past_time("--as-of", as_of), _past_time("--known-at", known_at))
        _show_timeline(order_id, point, find_database(data_dir, "auditor", database_url), as_json=json)
    elif projection is not None:
        _refuse("ORDER_ID", **{"--as-of": as_of, "--known-at": known_at})
        bounds = _bound("--from", start), _bound("--to", end)
        _show_state(projection, *bounds, lambda: find_database(data_dir, "auditor", database_url))


def _show_timeline(name: str, point: PointInTime, url: str, *, as_json: bool) -> None:
    from cli.history.timeline import open_timeline, print_timeline
    from shared.aggregates import AGGREGATES

    # An id may look like the name of a stream: the aggregate of that id comes first.
    streams = [*(aggregate.stream_of(name) for aggregate in AGGREGATES.values()), name]

    async def show() -> None:
        async with open_timeline(url, streams, point) as timeline:
            if timeline is None:
                nouns = " and no ".join(aggregate.noun for aggregate in AGGREGATES.values())
                raise CommandFailed(f"there is no {nouns} {name!r}, and no stream of that name")
            if not await print_timeline(timeline, as_json=as_json):
                raise CommandFailed(f"there was no {timeline.aggregate.noun} {timeline.aggregate_id!r} {point}")

    asyncio.run(show())


def _show_state(projection: str, start: Bound, end: Bound, url: Callable[[], str]) -> None:
    from cli.history.what_if import as_json, fold_history, load_function

    function = load_function(projection)
    sys.stdout.write(as_json(asyncio.run(fold_history(url(), function, start, end))) + "\n")


def _bound(option: str, text: str | None) -> Bound:
    """A position from 1 on, a time, or None. Raises BadArgument."""
    if text is not None and text.isdecimal() and text.isascii():
        if not 1 <= int(text) < 2**63:
            raise BadArgument(f"{option}: positions begin at 1")
        return int(text)
    return _time(option, text, "a position or ")


def _past_time(option: str, text: str | None) -> datetime | None:
    from query_service.point_in_time import CLOCK_TOLERANCE

    time = _time(option, text)
    if time is not None and time > datetime.now(UTC) + CLOCK_TOLERANCE:
        raise BadArgument(f"{option}: {text} is in the future")
    return time


def _time(option: str, text: str | None, otherwise: str = "") -> datetime | None:
    from pydantic import TypeAdapter, ValidationError

    from shared.http.fields import Rfc3339

    try:
        return None if text is None else TypeAdapter[datetime](Rfc3339).validate_python(text)
    except ValidationError as error:
        expected = f"{otherwise}an RFC 3339 time with an offset, such as 2026-01-31T14:30:00Z"
        raise BadArgument(f"{option}: {text!r} is not {expected}") from error


def _refuse(belongs_to: str, **options: str | None) -> None:
    for option, value in options.items():
        if value is not None:
            raise BadArgument(f"{option} goes with {belongs_to}")
