"""`orders log`: what an operator does to the log itself."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

log = typer.Typer(help="The event log itself.", no_args_is_help=True)

DEFAULT_DATA_DIR = Path(".orders")


@log.callback()
def _log() -> None:
    """Without this, Typer would take `new-id` for the whole of `orders log`."""


@log.command()
def new_id(
    reason: Annotated[str, typer.Option(help="Why, for auditors: one line, at most 500 characters.")],
    data_dir: Annotated[Path, typer.Option(help="Data directory of the running stack.")] = DEFAULT_DATA_DIR,
) -> None:
    """Give the log a new id, after it was restored from a backup and before anything else is let near it.

    Consistency-Tokens of the old id are refused from then on, services forget what they remember, read models are built
    again. The change is recorded in the log for ever. Needs the rights of the database's owner: DATABASE_URL as
    orders_migrator, or the running stack's.
    """
    from cli.new_log_id import NotGiven, give_new_id

    try:
        given = give_new_id(data_dir, reason)
    except NotGiven as error:
        typer.echo(f"orders: {error}", err=True)
        raise typer.Exit(1) from error
    print(f"old id    {given.old_id}")
    print(f"new id    {given.new_id}")
    print(f"position  {given.position}")
