"""The timeline of one stream as a table: a row for each event, with the fields of the document that it changed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import msgspec

from cli.history.log_snapshot import ReplayFailed, log_snapshot
from cli.tables import output_console, print_json, print_table
from query_service import time_travel
from query_service.point_in_time import PointInTime, rfc3339
from shared.aggregates import parse_stream
from shared.aggregates.aggregate import Aggregate, PastState
from shared.errors import Corrupt
from shared.eventstore import log as event_log
from shared.eventstore.log import Connection, StoredEvent


class TimelineEntry(NamedTuple):
    """An event, and the JSON object of the aggregate's document before and after it."""

    event: StoredEvent
    before: dict[str, Any]
    after: dict[str, Any]


class Timeline(NamedTuple):
    """The events of an aggregate up to a point in time."""

    aggregate: Aggregate[Any, Any]
    aggregate_id: str
    point: PointInTime
    entries: list[TimelineEntry]

    def __str__(self) -> str:
        return f"{self.aggregate.noun.capitalize()} {self.aggregate_id} {self.point}".rstrip()


async def read_timeline(url: str, streams: Sequence[str], point: PointInTime) -> Timeline | None:
    """The timeline of the first of the streams that exists; None when none does. A stream of no registered aggregate is
    skipped. Raises NoHistory, ReplayFailed."""
    async with log_snapshot(url) as (connection, _):
        for stream_id in streams:
            if (parsed := parse_stream(stream_id)) is None:
                continue
            timeline = Timeline(*parsed, point, [])
            if await _fold(connection, stream_id, timeline):
                return timeline
    return None


async def _fold(connection: Connection, stream_id: str, timeline: Timeline) -> bool:
    """Adds the entries. Whether the stream has events, also when none of them counts."""
    aggregate, aggregate_id, point, entries = timeline
    past: PastState[Any] | None = None
    document: dict[str, Any] = {}
    exists = False
    async for event in event_log.read_stream(connection, stream_id):
        exists = True
        if point.is_over(event, aggregate.backdating):
            break
        if not point.includes(event):
            continue
        try:
            past = time_travel.advance(aggregate, past, event)
        except Corrupt as error:
            raise ReplayFailed(f"stopped at position {event.position}: {error}") from error
        before, document = document, msgspec.to_builtins(aggregate.render(aggregate_id, past))
        entries.append(TimelineEntry(event, before, document))
    return exists


def print_timeline(timeline: Timeline, *, as_json: bool = False) -> None:
    """A person reads a terminal of 80 columns; programs parse a pipe or JSON."""
    if as_json:
        print_json(_as_json(timeline))
    elif output_console().is_terminal:
        rows = [
            [str(entry.event.version), "\n".join(_about(entry.event)), "\n".join(_changes(timeline.aggregate, entry))]
            for entry in timeline.entries
        ]
        print_table([">version", "event", "what it changed"], rows, title=str(timeline), row_lines=True)
    else:
        headings = [">version", ">position", "occurred at", "recorded at", "event", "what it changed"]
        print_table(headings, [_row(timeline.aggregate, entry) for entry in timeline.entries], title=str(timeline))


def _about(event: StoredEvent) -> Iterator[str]:
    yield _printable(event.event_type)
    yield f"position {event.position:,}"
    yield rfc3339(event.occurred_at)
    yield f"recorded {rfc3339(event.recorded_at)}"


def _row(aggregate: Aggregate[Any, Any], entry: TimelineEntry) -> list[str]:
    event = entry.event
    return [
        str(event.version),
        f"{event.position:,}",
        rfc3339(event.occurred_at),
        rfc3339(event.recorded_at),
        _printable(event.event_type),
        "\n".join(_changes(aggregate, entry)),
    ]


def _as_json(timeline: Timeline) -> dict[str, Any]:
    """Each event with the document as it was after it, named as the query service names it."""
    events = [
        {
            "version": event.version,
            "position": event.position,
            "event_type": event.event_type,
            "occurred_at": rfc3339(event.occurred_at),
            "recorded_at": rfc3339(event.recorded_at),
            timeline.aggregate.noun: after,
        }
        for event, _, after in timeline.entries
    ]
    return {timeline.aggregate.id_field: timeline.aggregate_id, "events": events}


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
