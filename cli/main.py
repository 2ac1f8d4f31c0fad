"""The `orders` command.

The modules imported here declare options only. A command imports what it needs when it runs: `orders --help` is quick.
"""

from __future__ import annotations

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from cli.audit import audit
from cli.backup import backup, restore
from cli.erase import erase
from cli.failure import INTERRUPTED, CommandFailed
from cli.import_orders import import_orders
from cli.keys import keys
from cli.migrate import migrate
from cli.new_log_id import log
from cli.processes import processes
from cli.projections import projections
from cli.replay import replay
from cli.run import run
from cli.snapshots import snapshots
from cli.token import token
from cli.up import up


class _Commands(TyperGroup):
    """Ends a command that failed with a message and its exit code instead of a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise typer.Exit(INTERRUPTED) from error
        except CommandFailed as error:
            typer.echo(f"orders: {error}", err=True)
            raise typer.Exit(error.exit_code) from error


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        print(f"orders {version('orders')}")
        raise typer.Exit


app = typer.Typer(
    cls=_Commands,
    help="Order management with CQRS and event sourcing on PostgreSQL and Redis.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def _options(
    *,
    _version: Annotated[
        bool,
        typer.Option(
            "--version", callback=lambda asked: _print_version(asked=asked), is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Typer prints the help of the application."""


app.command()(up)
app.command()(run)
app.command()(migrate)
app.command("import")(import_orders)
app.command()(replay)
app.command()(token)
app.command()(backup)
app.command()(restore)
app.command()(erase)
app.add_typer(projections, name="projections")
app.add_typer(processes, name="processes")
app.add_typer(audit, name="audit")
app.add_typer(log, name="log")
app.add_typer(snapshots, name="snapshots")
app.add_typer(keys, name="keys")
