"""What live updates read of the log: pages of the events of one order or of one customer, and every event with its
customer.

An order belongs to the customer whom its first event names, for ever. That is looked up event by event in the index
that every stream has anyway, so appending pays nothing for it.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from shared.aggregates.order import stream_of
from shared.eventstore import log as event_log
from shared.eventstore.log import Connection, Head, StoredEvent

EVENTS = 100  # on a page of the past
POSITIONS = 5_000  # looked through for a page of a customer's past, most of which is other customers'

_COLUMNS = ", ".join(f"e.{column}" for column in StoredEvent._fields)
# A subquery, not a join: however little is known about the tables, it is a look-up in the index (stream_id, version).
_CUSTOMER = (
    "(select f.data ->> 'customer_id' from events f"
    " where f.stream_id = e.stream_id and f.version = 1 and f.event_type = 'OrderPlaced')"
)
_READ_ALL = f"select {_COLUMNS}, {_CUSTOMER} from events e where e.position > $1 order by e.position limit $2"  # noqa: S608 - constants only
_HASH = "select hash from events where position = $1"
# `+ 0`: for an order, never by the index on positions, which spans every other order of that time.
_READ = {
    "order": (
        f"select {_COLUMNS} from events e where e.stream_id = $1 and e.position + 0 > $2 and e.position + 0 <= $3"  # noqa: S608 - constants only
        " order by e.version limit $4"
    ),
    "customer": (
        f"select {_COLUMNS} from events e where {_CUSTOMER} = $1 and e.position > $2 and e.position <= $3"  # noqa: S608 - constants only
        " order by e.position limit $4"
    ),
}


class StreamFilter(NamedTuple):
    """Whose events: an order's, or those of all orders of a customer."""

    kind: Literal["order", "customer"]
    id: str


class EventBatch(NamedTuple):
    """The next events of a subject; with them, `position` of the log is reached."""

    events: list[StoredEvent]
    position: int


async def read_all(connection: Connection, after: int, limit: int) -> list[tuple[StoredEvent, str | None]]:
    """At most `limit` events after a position, in order, each with the customer of its order."""
    rows = await connection.fetch(_READ_ALL, after, limit)
    return [(StoredEvent._make(row[:-1]), row[-1]) for row in rows]


async def read_hash(connection: Connection, position: int) -> bytes | None:
    """Of the event there, over all that was before it; None where there is none."""
    found: bytes | None = await connection.fetchval(_HASH, position)
    return found


async def read_page(connection: Connection, of: StreamFilter, after: int) -> tuple[EventBatch, Head]:
    """The next events of a subject after a position, some of them or none, and the end of the log.

    What the head shows is visible to whoever reads after it, so nothing up to it is missed.
    """
    head = await event_log.read_head(connection)
    kind, key = of
    up_to = head.position if kind == "order" else min(head.position, after + POSITIONS)
    name = stream_of(key) if kind == "order" else key
    events = [StoredEvent._make(row) for row in await connection.fetch(_READ[kind], name, after, up_to, EVENTS)]
    reached = events[-1].position if len(events) == EVENTS else max(after, up_to)
    return EventBatch(events, reached), head
