"""What the process runner keeps in PostgreSQL, so that it does not read the whole log when it starts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from command_service.processes.agenda import Agenda, Waiting
from shared.eventstore.lease import ForeignHolder, read_foreign_holders
from shared.eventstore.log import Connection

LEASE = "processes"

_TRY_LEASE = "select try_process_lease()"
_READ = "select followed, received from process_progress"
_READ_WAITING = "select waiting from process_waiting"
_SAVE = """
with waits as (
    insert into process_waiting (process_id, waiting) select * from unnest($3::text[], $4::text[])
    on conflict (process_id) do update set waiting = excluded.waiting
), ended as (
    delete from process_waiting where process_id = any($5::text[])
)
insert into process_progress (followed, received) values ($1, $2)
on conflict (only_row) do update set followed = $1, received = $2
"""


class Progress(NamedTuple):
    """`followed`: the agenda is saved as it was at this position. `received`: the events up to here were brought to the
    processes."""

    followed: int
    received: int


async def try_lease(connection: Connection) -> bool:
    """Whether the session is the one of the active runner, until it ends."""
    return bool(await connection.fetchval(_TRY_LEASE))


async def read_foreign_holder(connection: Connection) -> ForeignHolder | None:
    """The session that has the lease and is no runner's."""
    return next(iter(await read_foreign_holders(connection, [LEASE])), None)


async def read_progress(connection: Connection) -> Progress | None:
    """None before the first start of a runner, and after a restore."""
    row = await connection.fetchrow(_READ)
    return None if row is None else Progress(*row)


async def read_agenda(connection: Connection) -> Agenda:
    rows = await connection.fetch(_READ_WAITING)
    return Agenda([msgspec.json.decode(row["waiting"], type=Waiting) for row in rows])


async def save(
    connection: Connection, progress: Progress, waiting: Mapping[str, Waiting], changed: Iterable[str]
) -> None:
    """The progress, and those of the processes `changed` that wait for something; removes the others of these."""
    saved = {process_id: waiting.get(process_id) for process_id in changed}
    kept = {process_id: msgspec.json.encode(one).decode() for process_id, one in saved.items() if one is not None}
    ended = [process_id for process_id, one in saved.items() if one is None]
    await connection.execute(_SAVE, *progress, list(kept), list(kept.values()), ended)
