"""A feed: numbered rows in the shape of an event, and a head. The event log is one; a table of changes is another.

Positions are dense and visible in commit order, because what writes a row locks the feed's head. So subscriptions,
tokens, lag, rebuild and verification are the same for every feed.
"""

from __future__ import annotations

from dataclasses import dataclass

COLUMNS = (
    "position, stream_id, version, event_id, event_type, schema_version, data, metadata,"
    " occurred_at, recorded_at, hash, owner"
)


def bounded_page(where: str, order: str, limit: str, max_bytes: str, table: str = "events") -> str:
    """A statement that reads at most `limit` rows in an order, none after those whose JSON reaches `max_bytes`."""
    # Sums the sizes of rows before each: the page ends with the row that reaches the bound.
    return f"""
        select {COLUMNS} from (
            select {COLUMNS}, sum(octet_length(data::text) + octet_length(metadata::text))
                over (order by {order} rows between unbounded preceding and 1 preceding) as bytes_before
            from (select {COLUMNS} from {table} where {where} order by {order} limit {limit}) page
        ) sized
        where coalesce(bytes_before, 0) < {max_bytes} order by {order}
    """  # noqa: S608 - constants only


@dataclass(frozen=True, eq=False, slots=True)
class Feed:
    """`rows` and `head` are tables. `page` reads rows after a position and `stream_page` those of a stream after a
    version: both get a number of rows and of bytes as their last arguments."""

    rows: str
    head: str
    page: str
    stream_page: str

    @classmethod
    def of_tables(cls, rows: str, head: str) -> Feed:
        """One whose pages are read with plain statements."""
        return cls(
            rows,
            head,
            bounded_page("position > $1", "position", "$2", "$3", rows),
            bounded_page("stream_id = $1 and version > $2", "version", "$3", "$4", rows),
        )

    @property
    def read_head(self) -> str:
        return f"select log_id, position, nullif(recorded_at, '-infinity') from {self.head} where only_row"  # noqa: S608 - constants only

    @property
    def read_lag(self) -> str:
        """Gets the id and the position of a token. One of another feed, or of rows that a restore lost, counts as
        position 0. A time in the future says nothing of an age: the clock was ahead when the row was recorded."""
        return f"""
            select h.position, h.shown, case
                when h.shown = h.position then 0
                when e.recorded_at <= clock_timestamp() then extract(epoch from clock_timestamp() - e.recorded_at)
            end::float8
            from (
                select position, case when log_id = $1 and position >= $2 then $2 else 0 end as shown
                from {self.head} where only_row
            ) h
            left join {self.rows} e on e.position = h.shown + 1
        """  # noqa: S608 - constants only


EVENT_LOG = Feed(
    "events",
    "log_head",
    f"select {COLUMNS} from events_after($1, $2, $3)",  # noqa: S608 - constants only
    f"select {COLUMNS} from stream_after($1, $2, $3, $4)",  # noqa: S608 - constants only
)
