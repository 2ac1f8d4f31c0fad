"""SQL of an attacker with every right in the database."""

from __future__ import annotations

LAST = 60  # position of the last event of the log under test


def shift(first: int, by: int) -> tuple[str, str]:
    """Renumber the events from `first` on; by way of negative numbers, as positions are always unique."""
    return (
        f"update events set position = -(position + {by}) where position >= {first}",
        "update events set position = -position where position < 0",
    )


def swap(one: int, other: int) -> tuple[str, str, str]:
    """Exchange two events, each with its hash."""
    return (
        f"update events set position = -1 where position = {one}",
        f"update events set position = {one} where position = {other}",
        f"update events set position = {other} where position = -1",
    )


SWAP_HASHES = """
    update events a set hash = b.hash from events b
    where a.position in ({0}, {1}) and b.position in ({0}, {1}) and a.position <> b.position
"""

_FORGED = """
    insert into events
    select {0}, 'order-forged', {2}, gen_random_uuid(), 'OrderPlaced', 1, '{{}}', '{{}}', now(), e.recorded_at, {1}
    from events e where e.position = {0} - 1
"""


def forge(position: int, digest: str = "sha256('forged')", version: int = 1) -> str:
    """Put an event where there is none."""
    return _FORGED.format(position, digest, version)


def rehash(first: int) -> str:
    """Recompute every hash from `first` on, and the head, as a thorough forger would."""
    return f"""
        do $$
        declare
            e public.events;
            digest bytea;
        begin
            select coalesce((select hash from events where position = {first} - 1), sha256(uuid_send(log_id)))
            into digest from log_head;
            for e in select * from events where position >= {first} order by position loop
                digest := event_hash(digest, e.position, e.stream_id, e.version, e.event_id, e.event_type,
                    e.schema_version, e.data::text, e.metadata::text, e.occurred_at, e.recorded_at);
                update events set hash = digest where position = e.position;
            end loop;
        end $$
    """


HEAD_FOLLOWS = """
    update log_head h set position = e.position, hash = e.hash, recorded_at = e.recorded_at
    from (select * from events order by position desc limit 1) e
"""


def rehash_one(position: int) -> str:
    """Recompute the hash of one event only."""
    return f"""
        update events e
        set hash = event_hash(b.hash, e.position, e.stream_id, e.version, e.event_id, e.event_type, e.schema_version,
                              e.data::text, e.metadata::text, e.occurred_at, e.recorded_at)
        from events b where b.position = e.position - 1 and e.position = {position}
    """
