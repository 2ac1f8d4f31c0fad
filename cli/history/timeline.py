"""The timeline of one stream as a table: a row for each event, with the fields of the document that it changed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from textwrap import indent
from typing import Any, NamedTuple

import msgspec

from cli.history.log_snapshot import ReplayFailed, log_connection, reading
from cli.tables import output_console, print_table
from query_service import time_travel
from query_service.point_in_time import PointInTime, rfc3339
from shared.aggregates import parse_stream
from shared.aggregates.aggregate import Aggregate, PastState
from shared.errors import Corrupt
from shared.eventstore import log as event_log
from shared.eventstore.log import Connection, StoredEvent

PAGE = 200  # events of a table


class TimelineEntry(NamedTuple):
    """An event, and the JSON object of the aggregate's document before and after it."""

    event: StoredEvent
    before: dict[str, Any]
    after: dict[str, Any]


class Timeline(NamedTuple):
    """The events of an aggregate up to a point in time, to be iterated once: each is folded when it is due."""

    aggregate: Aggregate[Any, Any]
    aggregate_id: str
    point: PointInTime
    entries: AsyncIterator[TimelineEntry]

    def __str__(self) -> str:
        return f"{self.aggregate.noun.capitalize()} {self.aggregate_id} {self.point}".rstrip()


@asynccontextmanager
async def open_timeline(url: str, streams: Sequence[str], point: PointInTime) -> AsyncIterator[Timeline | None]:
    """The timeline of the first of the streams that exists; None when none does. A stream of no registered aggregate is
    skipped. Raises NoHistory; its entries raise NoHistory and ReplayFailed.

    In no transaction: the server ends one that waits for the reader of a terminal.
    """
    async with log_connection(url) as connection:
        with reading():
            head = await event_log.read_head(connection)
        for stream_id in streams:
            if (parsed := parse_stream(stream_id)) is not None:
                events = _events(connection, stream_id, head.position)
                if (first := await anext(events, None)) is not None:
                    yield Timeline(*parsed, point, _entries(*parsed, point, first, events))
                    return
        yield None


async def _events(connection: Connection, stream_id: str, last: int) -> AsyncIterator[StoredEvent]:
    """Of the stream, up to that position. Raises NoHistory."""
    events = event_log.read_stream(connection, stream_id)
    while True:
        with reading():
            event = await anext(events, None)
        if event is None or event.position > last:
            return
        yield event


async def _entries(
    aggregate: Aggregate[Any, Any],
    aggregate_id: str,
    point: PointInTime,
    first: StoredEvent,
    others: AsyncIterator[StoredEvent],
) -> AsyncIterator[TimelineEntry]:
    past: PastState[Any] | None = None
    document: dict[str, Any] = {}
    event: StoredEvent | None = first
    while event is not None and not point.is_over(event, aggregate.backdating):
        if point.includes(event):
            try:
                past = time_travel.advance(aggregate, past, event)
            except Corrupt as error:
                raise ReplayFailed(f"stopped at position {event.position}: {error}") from error
            before, document = document, msgspec.to_builtins(aggregate.render(aggregate_id, past))
            yield TimelineEntry(event, before, document)
        event = await anext(others, None)


async def print_timeline(timeline: Timeline, *, as_json: bool = False) -> bool:
    """Prints tables of up to `PAGE` events: a person reads a terminal of 80 columns, programs parse a pipe or JSON.
    Whether there was any event; else it prints nothing."""
    if as_json:
        return await _print_as_json(timeline)
    shown = 0
    rows: list[list[str]] = []
    is_terminal = output_console().is_terminal

    def print_page() -> None:
        title = "" if shown > len(rows) else str(timeline)
        if is_terminal:
            print_table([">version", "event", "what it changed"], rows, title=title, row_lines=True)
        else:
            headings = [">version", ">position", "occurred at", "recorded at", "event", "what it changed"]
            print_table(headings, rows, title=title)

    async for entry in timeline.entries:
        changed = "\n".join(_changes(timeline.aggregate, entry))
        if is_terminal:
            rows.append([str(entry.event.version), "\n".join(_about(entry.event)), changed])
        else:
            rows.append([*_row(entry.event), changed])
        shown += 1
        if len(rows) == PAGE:
            print_page()
            rows.clear()
    if rows:
        print_page()
    return shown > 0


async def _print_as_json(timeline: Timeline) -> bool:
    """One JSON object, event by event. Each comes with the document as it was after it, named as the query service
    names it."""
    name = timeline.aggregate.id_field
    before = f'{{\n  "{name}": {msgspec.json.encode(timeline.aggregate_id).decode()},\n  "events": [\n'
    async for event, _, document in timeline.entries:
        shown = {
            "version": event.version,
            "position": event.position,
            "event_type": event.event_type,
            "occurred_at": rfc3339(event.occurred_at),
            "recorded_at": rfc3339(event.recorded_at),
            timeline.aggregate.noun: document,
        }
        text = msgspec.json.format(msgspec.json.encode(shown)).decode()
        print(f"{before}{indent(text, '    ')}", end="")
        before = ",\n"
    if before != ",\n":
        return False
    print("\n  ]\n}")
    return True


def _about(event: StoredEvent) -> Iterator[str]:
    yield _printable(event.event_type)
    yield f"position {event.position:,}"
    yield rfc3339(event.occurred_at)
    yield f"recorded {rfc3339(event.recorded_at)}"


def _row(event: StoredEvent) -> list[str]:
    return [
        str(event.version),
        f"{event.position:,}",
        rfc3339(event.occurred_at),
        rfc3339(event.recorded_at),
        _printable(event.event_type),
    ]


def _changes(aggregate: Aggregate[Any, Any], entry: TimelineEntry) -> Iterator[str]:
    """A line for every changed field; for a list, one for every element that was added or removed."""
    in_other_columns = {aggregate.id_field, "version"}
    for name, new in entry.after.items():
        old = entry.before.get(name)
        if old == new or name in in_other_columns or new == rfc3339(entry.event.occurred_at):
            continue
        if isinstance(new, list | tuple):
            yield from _list_changes(name, old or (), new)
        else:
            yield f"{name}: {_value(old)} → {_value(new)}" if entry.before else f"{name}: {_value(new)}"


def _list_changes(name: str, before: Sequence[Any], after: Sequence[Any]) -> Iterator[str]:
    for sign, elements, others in (("-", before, after), ("+", after, before)):
        left = list(others)
        for element in elements:
            if element in left:
                left.remove(element)
            else:
                yield f"{name}: {sign} {_value(element)}"


def _value(value: object) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{_printable(name)} {_value(part)}" for name, part in value.items() if part is not None)
    if isinstance(value, list | tuple):
        return "; ".join(map(_value, value))
    return f"{value:,}" if isinstance(value, int) else _printable(str(value))


def _printable(text: str) -> str:
    """The text, with every control character escaped."""
    return text if text.isprintable() else ascii(text)
