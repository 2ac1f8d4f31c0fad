"""Which processes would work on which partition: a shared advisory lock on each partition that a process is a candidate
for, beside the lease of the process that works on it.

Candidates and holders can be read by all, and vanish with their sessions, so the processes share the partitions without
talking to each other (`projector.assignment`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection

from projector.assignment import PartitionOwners
from shared.eventstore.subscription import LogSession

_JOIN = "select pg_try_advisory_lock_shared(hashtextextended('candidate for ' || name, 0)) from unnest($1::text[]) name"
_LEAVE = "select pg_advisory_unlock_shared(hashtextextended('candidate for ' || name, 0)) from unnest($1::text[]) name"
# A lock's number shows in halves.
_READ_OWNERS = """
with wanted as (
    select name, hashtextextended(name, 0) as lease, hashtextextended('candidate for ' || name, 0) as candidacy
    from unnest($1::text[]) name
), held as (
    select (classid::bigint << 32) | objid::bigint as key, pid, mode = 'ExclusiveLock' as holds from pg_locks
    where locktype = 'advisory' and objsubid = 1 and granted
      and database = (select oid from pg_database where datname = current_database())
)
select w.name, h.pid, h.holds from held h left join wanted w on h.key in (w.lease, w.candidacy)
where w.name is not null or h.holds
"""


class Membership:
    """The partitions that a session is a candidate for."""

    def __init__(self, session: LogSession) -> None:
        self._session = session
        self._joined: frozenset[str] = frozenset()

    async def join(self, names: Collection[str]) -> None:
        """The session becomes a candidate for these, and for no others."""
        wanted = frozenset(names)
        for statement, changed in ((_JOIN, wanted - self._joined), (_LEAVE, self._joined - wanted)):
            if changed:
                async with self._session.exclusive() as connection:
                    await connection.execute(statement, sorted(changed))
        self._joined = wanted


async def read_owners(session: LogSession, names: Collection[str]) -> tuple[list[PartitionOwners], Counter[int]]:
    """Holder and candidates of each partition; how many leases of other names each session holds besides."""
    async with session.exclusive() as connection:
        rows = await connection.fetch(_READ_OWNERS, sorted(names))
    holders: dict[str, int] = {row["name"]: row["pid"] for row in rows if row["holds"]}
    candidates: defaultdict[str, set[int]] = defaultdict(set)
    for row in rows:
        if not row["holds"]:
            candidates[row["name"]].add(row["pid"])
    elsewhere = Counter(row["pid"] for row in rows if row["name"] is None)
    return [PartitionOwners(name, holders.get(name), frozenset(candidates[name])) for name in sorted(names)], elsewhere
