"""What live updates can follow, and the pages of past events that match."""

from __future__ import annotations

from typing import NamedTuple

from shared.aggregates import AGGREGATES, parse_stream
from shared.eventstore import log as event_log
from shared.eventstore.feed import bounded_page
from shared.eventstore.log import Connection, Head, Page, StoredEvent

EVENTS = 100  # on a page of the past
PAGE_BYTES = 64 * 1024  # of the events' JSON, and one event more

# `+ 0`: never by the index on positions, which spans the events of all other streams of that time.
_READ_STREAM = bounded_page("stream_id = $1 and position + 0 > $2", "version", "$3", "$4")
_READ_OWNER = bounded_page("owner = $1 and position > $2", "position", "$3", "$4")


class StreamFilter(NamedTuple):
    """The events of one aggregate; with `by_owner`, of all aggregates of the category that belong to the owner `id`.
    `WHOLE_LOG` is of no category."""

    category: str
    id: str
    by_owner: bool = False


WHOLE_LOG = StreamFilter("", "")


class EventBatch(NamedTuple):
    """The next events that match a filter. Together with the batches before, they are complete up to `position`."""

    events: list[StoredEvent]
    position: int


def filters_of(event: StoredEvent) -> list[StreamFilter]:
    """The filters that the event matches."""
    if (parsed := parse_stream(event.stream_id)) is None:
        return [WHOLE_LOG]
    aggregate, aggregate_id = parsed
    filters = [WHOLE_LOG, StreamFilter(aggregate.category, aggregate_id)]
    if aggregate.owner is not None and event.owner is not None:
        filters.append(StreamFilter(aggregate.category, event.owner, by_owner=True))
    return filters


async def read_page(connection: Connection, of: StreamFilter, after: int) -> tuple[EventBatch, Head]:
    """The next matching events after a position, some of them or none, and the head of the log.

    A later read sees every event up to that head, so none is missed.
    """
    head = await event_log.read_head(connection)
    events, more = await _read(connection, of, after)
    reached = events[-1].position if events else after
    if not more:
        reached = max(reached, head.position)
    return EventBatch([event for event in events if of in filters_of(event)], reached), head


async def _read(connection: Connection, of: StreamFilter, after: int) -> Page:
    """The next events of the log, of the stream or of the owner, of whichever category."""
    if of == WHOLE_LOG:
        return await event_log.read_page(connection, after, EVENTS, PAGE_BYTES)
    if of.by_owner:
        rows = await connection.fetch(_READ_OWNER, of.id, after, EVENTS, PAGE_BYTES)
    else:
        stream_id = AGGREGATES[of.category].stream_of(of.id)
        rows = await connection.fetch(_READ_STREAM, stream_id, after, EVENTS, PAGE_BYTES)
    return event_log.as_page(rows, EVENTS, PAGE_BYTES)
