"""`orders log new-id`: another identity for a log that was restored."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple
from uuid import UUID

import typer

from cli.failure import CommandFailed
from cli.options import DataDir, Json

if TYPE_CHECKING:
    from shared.privacy.erasure_register import DestroyedKey

LONGEST_REASON = 500  # characters
LOCK_SECONDS = 10.0  # longer than the appends under way take; a session that holds the head longer is a fault

log = typer.Typer(help="The event log itself.", no_args_is_help=True)


class _GivenId(NamedTuple):
    old_id: UUID
    new_id: UUID
    position: int
    keys_destroyed: int | None = None  # by the register, if one was given


@log.callback()
def _log() -> None:
    """Typer takes the only command of a group for the group itself, unless the group has a callback."""


@log.command()
def new_id(
    reason: Annotated[str, typer.Option(help="Why, for auditors: one line, at most 500 characters.")],
    erasures: Annotated[
        Path | None, typer.Option(help="Register of `orders keys erasures`: destroy these keys again.", dir_okay=False)
    ] = None,
    data_dir: DataDir = None,
    *,
    json: Json = False,
) -> None:
    """Give the log a new id, after it was restored from a backup and before any service connects to it.

    From then on Consistency-Tokens of the old id are refused, services drop their caches, read models are built again.
    The log records the change for ever. Needs the rights of the database's owner: DATABASE_URL as orders_migrator, or
    the running stack's.
    """
    import asyncpg

    from cli.stack.addresses import find_database
    from cli.tables import print_fields
    from shared.postgres import CONNECTION_LOST
    from shared.privacy.erasure_register import decode

    check_reason(reason)
    try:
        register = [] if erasures is None else decode(erasures.read_text("utf-8"))
        given = asyncio.run(_give_new_id(find_database(data_dir), reason, register))
    except (*CONNECTION_LOST, asyncpg.PostgresError, ValueError) as error:
        raise CommandFailed(str(error) or repr(error)) from error
    fields = {name: value for name, value in given._asdict().items() if value is not None}
    print_fields(fields, as_json=json)


def check_reason(reason: str) -> None:
    """Raises CommandFailed."""
    if not 0 < len(reason) <= LONGEST_REASON or not reason.isprintable():
        raise CommandFailed(f"the reason must be one line of 1 to {LONGEST_REASON} characters")


async def _give_new_id(url: str, reason: str, register: Sequence[DestroyedKey]) -> _GivenId:
    import asyncpg

    from shared.postgres import CONNECT_SECONDS
    from shared.privacy.erasure_register import destroy_again

    connection = await asyncpg.connect(url, timeout=CONNECT_SECONDS, server_settings={"application_name": "orders-log"})
    try:
        async with connection.transaction():
            row = await connection.fetchrow("select * from give_new_log_id($1)", reason, timeout=LOCK_SECONDS)
            assert row is not None, "the function answers with one row"
            destroyed = await destroy_again(connection, register) if register else None
            return _GivenId(row["old_id"], row["new_id"], row["position"], destroyed)
    finally:
        await connection.close(timeout=CONNECT_SECONDS)
