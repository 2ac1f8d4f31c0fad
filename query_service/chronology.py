"""The events of a stream in the order in which they occurred, a page at a time.

All pages show the same first events of the stream: what is recorded between two pages changes none of them.
"""

from __future__ import annotations

from datetime import datetime
from typing import NamedTuple

from shared.eventstore import log as event_log
from shared.eventstore.feed import bounded_page
from shared.eventstore.log import Connection, Page

_VERSION_AT = """
select coalesce((select version from events where stream_id = $1 and ($2::timestamptz is null or recorded_at <= $2)
                 order by version desc limit 1), 0)
"""
# The first event of a stream began it, and is on no page.
_PERIOD = """
stream_id = $1 and version between 2 and $2
and ($3::timestamptz is null or occurred_at >= $3) and ($4::timestamptz is null or occurred_at < $4)
and ($5::timestamptz is null or (occurred_at, version) > ($5, $6::integer))
"""
_READ_PAGE = bounded_page(_PERIOD, "occurred_at, version", "$7", "$8")


class After(NamedTuple):
    """Where a page ended: at the event `version`, of the first `of_version` events of the stream."""

    of_version: int
    occurred_at: datetime
    version: int


class Period(NamedTuple):
    """The events that occurred from `begin` until before `end`, of those that were recorded by `known_at`; None: no
    bound. A later page begins `after` the one before it."""

    begin: datetime | None = None
    end: datetime | None = None
    known_at: datetime | None = None
    after: After | None = None


async def version_at(connection: Connection, stream_id: str, known_at: datetime | None) -> int:
    """The version of a stream's last event that was recorded by then; 0 when there was no such stream."""
    return int(await connection.fetchval(_VERSION_AT, stream_id, known_at))


async def read_page(
    connection: Connection, stream_id: str, version: int, period: Period, limit: int, max_bytes: int
) -> Page:
    """At most `limit` events of the period among the first `version` of the stream, without its first one; none after
    those whose JSON reaches `max_bytes`."""
    after = period.after
    bounds = (period.begin, period.end, *((None, None) if after is None else after[1:]))
    up_to = version if after is None else min(version, after.of_version)
    rows = await connection.fetch(_READ_PAGE, stream_id, up_to, *bounds, limit + 1, max_bytes)
    page = event_log.as_page(rows, limit + 1, max_bytes)
    return Page(page.events[:limit], page.more)
