"""`orders snapshots compact`: save a snapshot of every stream that grew."""

from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from cli.failure import CommandFailed
from cli.options import DataDir

snapshots = typer.Typer(help="Folded states that shorten loading.", no_args_is_help=True)


@snapshots.callback()
def _snapshots() -> None:
    """Typer takes the only command of a group for the group itself, unless the group has a callback."""


@snapshots.command()
def compact(
    every: Annotated[int, typer.Option(min=1, help="Save streams that grew by so many events.")] = 100,
    from_start: Annotated[bool, typer.Option("--from-start", help="Search the whole log again.")] = False,
    data_dir: DataDir = None,
) -> None:
    """Save a snapshot of every stream that grew since its last one. The command service does this in the background.

    Needs its role and its SNAPSHOT_KEY: those of the environment, or the running stack's.
    """
    import asyncpg

    from cli.stack.addresses import find_database, find_snapshot_key
    from shared.eventstore.snapshots import Snapshots
    from shared.eventstore.snapshots import compact as compact_streams
    from shared.eventstore.store import PostgresEventStore
    from shared.postgres import CONNECTION_LOST

    url = find_database(data_dir, "command")
    key = find_snapshot_key(data_dir)

    async def save() -> int:
        connection = await asyncpg.connect(url)
        try:
            snapshots = Snapshots(PostgresEventStore(connection), key)
            return await compact_streams(connection, snapshots, every, from_start=from_start)
        finally:
            await connection.close()

    try:
        saved = asyncio.run(save())
    except (*CONNECTION_LOST, asyncpg.PostgresError, ValueError) as error:
        raise CommandFailed(str(error)) from error
    print(f"kept {saved} snapshots")
