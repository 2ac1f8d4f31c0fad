"""What live updates read of the log: pages of the events that match a filter, and every event with its owner.

The owner of an aggregate is looked up event by event in the index that every stream has anyway, so an append does no
work for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from shared.aggregates import AGGREGATES
from shared.aggregates.aggregate import Owner
from shared.eventstore import log as event_log
from shared.eventstore.log import Connection, Head, StoredEvent

EVENTS = 100  # on a page of the past
POSITIONS = 5_000  # read for a page of an owner's past, most of which is other owners'

_COLUMNS = ", ".join(f"e.{column}" for column in StoredEvent._fields)
_HASH = "select hash from events where position = $1"
# `+ 0`: never by the index on positions, which spans the events of all other streams of that time.
_READ_STREAM = (
    f"select {_COLUMNS} from events e where e.stream_id = $1 and e.position + 0 > $2 and e.position + 0 <= $3"  # noqa: S608 - constants only
    " order by e.version limit $4"
)


class StreamFilter(NamedTuple):
    """The events of one aggregate; with `by_owner`, of all aggregates of the category that belong to the owner `id`."""

    category: str
    id: str
    by_owner: bool = False


class EventBatch(NamedTuple):
    """The next events that match a filter. Together with the batches before, they are complete up to `position`."""

    events: list[StoredEvent]
    position: int


async def read_all(connection: Connection, after: int, limit: int) -> list[tuple[StoredEvent, str | None]]:
    """At most `limit` events after a position, in order, each with the id of its aggregate's owner."""
    owners = [aggregate.owner for aggregate in AGGREGATES.values() if aggregate.owner is not None]
    owner = _owner_sql(owners) if owners else "null::text"
    statement = f"select {_COLUMNS}, {owner} from events e where e.position > $1 order by e.position limit $2"  # noqa: S608 - constants only
    rows = await connection.fetch(statement, after, limit)
    return [(StoredEvent._make(row[:-1]), row[-1]) for row in rows]


async def read_hash(connection: Connection, position: int) -> bytes | None:
    """The hash of the event at a position; None where there is none."""
    found: bytes | None = await connection.fetchval(_HASH, position)
    return found


async def read_page(connection: Connection, of: StreamFilter, after: int) -> tuple[EventBatch, Head]:
    """The next matching events after a position, some of them or none, and the head of the log.

    A later read sees every event up to that head, so none is missed.
    """
    head = await event_log.read_head(connection)
    aggregate = AGGREGATES[of.category]
    if of.by_owner:
        assert aggregate.owner is not None, "only an aggregate with an owner is followed by owner"
        up_to = min(head.position, after + POSITIONS)
        statement = (
            f"select {_COLUMNS} from events e where {_owner_sql([aggregate.owner])} = $1"  # noqa: S608 - identifiers only
            " and starts_with(e.stream_id, $5) and e.position > $2 and e.position <= $3 order by e.position limit $4"
        )
        rows = await connection.fetch(statement, of.id, after, up_to, EVENTS, aggregate.stream_of(""))
    else:
        up_to = head.position
        rows = await connection.fetch(_READ_STREAM, aggregate.stream_of(of.id), after, up_to, EVENTS)
    events = [StoredEvent._make(row) for row in rows]
    reached = events[-1].position if len(events) == EVENTS else max(after, up_to)
    return EventBatch(events, reached), head


def _owner_sql(owners: Iterable[Owner]) -> str:
    """The owner of the stream of event `e`. A subquery, not a join: whatever PostgreSQL knows of the tables, it is a
    look-up in the index (stream_id, version)."""
    cases = " ".join(
        f"when '{_identifier(owner.event.__name__)}' then f.data ->> '{_identifier(owner.field)}'" for owner in owners
    )
    return f"(select case f.event_type {cases} end from events f where f.stream_id = e.stream_id and f.version = 1)"  # noqa: S608 - identifiers of the program only


def _identifier(name: str) -> str:
    assert name.isidentifier(), name
    return name
