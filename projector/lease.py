"""Who works on which partition: session-level advisory locks in PostgreSQL, held by the process's `Session`.

A lease saves work, it does not guard anything: two that believe they hold it cannot harm each other (see
`projector.engine`). It ends with its session, however that ends.

Besides, every process holds a shared lock on each partition that it would work on: it stands for it. Who stands and who
holds can be seen by all, and vanishes with them, so the processes share the partitions without talking to each other
(`projector.sharing`).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass

from projector.session import Session
from projector.sharing import Sighting
from shared.postgres import CONNECTION_LOST
from shared.read_models.keys import PartitionKeys

# Asked for again and again rather than waited for: a statement waiting for a lock keeps its snapshot, and with it
# every dead version of the log's head row.
_TRY = "select pg_try_advisory_lock(hashtextextended('projector of ' || $1, 0))"
_RELEASE = "select pg_advisory_unlock(hashtextextended('projector of ' || $1, 0))"
_STAND = (
    "select pg_try_advisory_lock_shared(hashtextextended('candidate for ' || name, 0)) from unnest($1::text[]) name"
)
_WITHDRAW = (
    "select pg_advisory_unlock_shared(hashtextextended('candidate for ' || name, 0)) from unnest($1::text[]) name"
)
# A lock's number shows in halves.
_LOOK = """
with wanted as (
    select name, hashtextextended('projector of ' || name, 0) as lease,
           hashtextextended('candidate for ' || name, 0) as candidacy
    from unnest($1::text[]) name
), held as (
    select (classid::bigint << 32) | objid::bigint as key, pid, mode = 'ExclusiveLock' as holds from pg_locks
    where locktype = 'advisory' and objsubid = 1 and granted
      and database = (select oid from pg_database where datname = current_database())
)
select w.name, h.pid, h.holds from held h left join wanted w on h.key in (w.lease, w.candidacy)
where w.name is not null or h.holds
"""
_NEXT_EPOCH = "select nextval('projector_epochs')"
# By drawing, not by setval(), which the projector's role may not use. Epochs count leases: there are not many to draw.
_RAISE_EPOCH = (
    "select coalesce(max(nextval('projector_epochs')), currval('projector_epochs'))"
    " from generate_series(nextval('projector_epochs'), $1::bigint + 1)"
)


@dataclass(slots=True)
class Lease:
    """The right to work on a partition, while `session` lives. Higher epochs are later leases."""

    session: Session
    epoch: int
    name: str

    async def raise_epoch(self, above: int) -> None:
        """Takes a new epoch higher than `above`. The session that holds the lock does it, so it is still the one."""
        async with self.session.turn() as connection:
            self.epoch = await connection.fetchval(_RAISE_EPOCH, above)

    async def release(self) -> None:
        with suppress(*CONNECTION_LOST):  # it ended with the connection
            async with self.session.turn() as connection:
                await connection.execute(_RELEASE, self.name)


def lease_name(projection: str, generation: int, partition: int) -> str:
    return PartitionKeys(projection, partition, generation).prefix


async def try_acquire(session: Session, name: str) -> Lease | None:
    """The lease of that name, or None while another session has it."""
    async with session.turn() as connection:
        if not await connection.fetchval(_TRY, name):
            return None
        return Lease(session, await connection.fetchval(_NEXT_EPOCH), name)


class Candidacy:
    """What this session stands for."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._standing: frozenset[str] = frozenset()

    async def stand(self, names: Collection[str]) -> None:
        """For these, and no others."""
        wanted = frozenset(names)
        for statement, changed in ((_STAND, wanted - self._standing), (_WITHDRAW, self._standing - wanted)):
            if changed:
                async with self._session.turn() as connection:
                    await connection.execute(statement, sorted(changed))
        self._standing = wanted


async def look(session: Session, names: Collection[str]) -> tuple[list[Sighting], Counter[int]]:
    """Who holds and who stands for each; how many leases of other names each session holds besides."""
    async with session.turn() as connection:
        rows = await connection.fetch(_LOOK, sorted(names))
    holders: dict[str, int] = {row["name"]: row["pid"] for row in rows if row["holds"]}
    candidates: defaultdict[str, set[int]] = defaultdict(set)
    for row in rows:
        if not row["holds"]:
            candidates[row["name"]].add(row["pid"])
    elsewhere = Counter(row["pid"] for row in rows if row["name"] is None)
    return [Sighting(name, holders.get(name), frozenset(candidates[name])) for name in sorted(names)], elsewhere
