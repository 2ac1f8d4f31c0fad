"""Finds sessions that hold a lease and are no projector's: nothing is projected while they do."""

from __future__ import annotations

from collections.abc import Collection
from time import monotonic

from shared.eventstore.lease import ForeignHolder, read_foreign_holders
from shared.eventstore.subscription import LogSession
from shared.logs import get_logger

CHECK_SECONDS = 2.0  # between checks

_log = get_logger()


class ForeignLeaseMonitor:
    """`holders` are those of the last check."""

    def __init__(self, session: LogSession) -> None:
        self.holders: list[ForeignHolder] = []
        self._session = session
        self._next_check = 0.0

    async def check(self, leases: Collection[str]) -> None:
        """Reads the foreign holders of these leases every `CHECK_SECONDS`; logs each once."""
        if monotonic() < self._next_check:
            return
        async with self._session.exclusive() as connection:
            found = await read_foreign_holders(connection, leases)
        known = {(holder.lease, holder.pid) for holder in self.holders}
        for holder in found:
            if (holder.lease, holder.pid) not in known:
                _log.error("lease held by a foreign session", **holder._asdict())
        self.holders = found
        self._next_check = monotonic() + CHECK_SECONDS
