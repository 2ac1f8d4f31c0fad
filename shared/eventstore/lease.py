"""Leases: session-level advisory locks in PostgreSQL, each with one holder.

A lease saves work, it does not guard anything: whatever its holder writes has to be fenced by its epoch. It ends with
the session that holds it, however that ends.
"""

from __future__ import annotations

from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, NamedTuple

from shared.eventstore.log import Connection
from shared.postgres import CONNECTION_LOST

if TYPE_CHECKING:
    from shared.eventstore.subscription import LogSession

# Tried again and again rather than waited for: a statement that waits for a lock keeps its snapshot, and with it every
# dead version of the log's head row.
_TRY = "select pg_try_advisory_lock(hashtextextended($1, 0))"
_RELEASE = "select pg_advisory_unlock(hashtextextended($1, 0))"
_NEXT_EPOCH = "select nextval('projector_epochs')"
# By drawing, not by setval(), which the projector's role may not use. Epochs count leases: there are not many to draw.
_RAISE_EPOCH = (
    "select coalesce(max(nextval('projector_epochs')), currval('projector_epochs'))"
    " from generate_series(nextval('projector_epochs'), $1::bigint + 1)"
)
_FOREIGN_HOLDERS = "select * from foreign_lease_holders($1)"


@dataclass(slots=True)
class Lease:
    """The right to follow the log under a name, while `session` lives. Higher epochs are later leases."""

    session: LogSession
    epoch: int
    name: str

    async def raise_epoch(self, above: int) -> None:
        """Takes a new epoch higher than `above`. The session that holds the lock does it, so it is still the one."""
        async with self.session.exclusive() as connection:
            self.epoch = await connection.fetchval(_RAISE_EPOCH, above)

    async def release(self) -> None:
        with suppress(*CONNECTION_LOST):  # it ended with the connection
            async with self.session.exclusive() as connection:
                await connection.execute(_RELEASE, self.name)


async def try_acquire(session: LogSession, name: str) -> Lease | None:
    """The lease of that name, or None while another session has it."""
    async with session.exclusive() as connection:
        if not await connection.fetchval(_TRY, name):
            return None
        return Lease(session, await connection.fetchval(_NEXT_EPOCH), name)


class ForeignHolder(NamedTuple):
    """A session that holds a lease's lock and is no `LogSession` of the projector's role.

    `client` and `since`, when it connected, are None where the database's owner may not see them.
    """

    lease: str
    pid: int
    user: str
    application: str
    client: str | None
    since: datetime | None


async def read_foreign_holders(connection: Connection, leases: Collection[str]) -> list[ForeignHolder]:
    """Those of these leases."""
    return [ForeignHolder(*row) for row in await connection.fetch(_FOREIGN_HOLDERS, sorted(leases))]
