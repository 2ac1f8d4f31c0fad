"""The `orders` command. What a command needs is imported when it runs, so that `orders --help` is quick."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal, NoReturn

import typer

from cli.audit import audit
from cli.log import log

app = typer.Typer(
    help="Order management with CQRS and event sourcing on PostgreSQL and Redis.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
projections = typer.Typer(help="The read models.", no_args_is_help=True)
app.add_typer(projections, name="projections")
app.add_typer(audit, name="audit")
app.add_typer(log, name="log")

snapshots = typer.Typer(help="Folded states that shorten loading.", no_args_is_help=True)
app.add_typer(snapshots, name="snapshots")

DataDir = Annotated[Path, typer.Option(help="Where the embedded servers keep their data.")]
Port = typer.Option(min=1, max=65535)
DEFAULT_DATA_DIR = Path(".orders")


@app.command()
def up(
    data_dir: DataDir = DEFAULT_DATA_DIR,
    command_port: Annotated[int, Port] = 8001,
    query_port: Annotated[int, Port] = 8002,
) -> None:
    """Start the whole stack in this terminal.

    Embedded PostgreSQL and Valkey, unless DATABASE_URL and REDIS_URL name others; migrations; command service,
    projector and query service. Ctrl-C stops all of it. What dies is restarted.
    """
    from cli.stack.binaries import BinaryMissing
    from cli.stack.runner import Refused
    from cli.stack.runner import up as start

    try:
        start(data_dir, command_port, query_port)
    except (Refused, BinaryMissing) as error:
        _fail(str(error), code=1)


@app.command()
def run(name: Annotated[Literal["command", "projector", "query"], typer.Argument(metavar="NAME")]) -> None:
    """Run one process, NAME being command, projector or query, with its settings from the environment."""
    from cli.run import BadSettings
    from cli.run import run as run_process

    try:
        run_process(name)
    except BadSettings as error:
        _fail(str(error), code=2)


@app.command()
def migrate(data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Bring the database to the newest schema: DATABASE_URL, or the running stack's."""
    from cli.migrate import MigrationFailed, migrate_database

    try:
        applied = migrate_database(data_dir)
    except MigrationFailed as error:
        _fail(str(error), code=1)
    print("\n".join(f"applied {name}" for name in applied) or "nothing to apply")


# A command that brings its own options: they are only known once it is imported.
_OWN_OPTIONS = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command("import", add_help_option=False, context_settings=_OWN_OPTIONS)
def import_orders(context: typer.Context) -> None:
    """Place real orders from an Online Retail CSV through the command API."""
    from cli.import_orders import import_command

    _hand_over(context, import_command)


@app.command(add_help_option=False, context_settings=_OWN_OPTIONS)
def replay(context: typer.Context) -> None:
    """Show the life of one order, or fold a function of your own over all of history."""
    from cli.replay import replay_command

    _hand_over(context, replay_command)


def _hand_over(context: typer.Context, function: Callable[..., None]) -> None:
    command = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    command.command()(function)
    command(args=context.args, prog_name=context.command_path)


@snapshots.callback()
def _snapshots() -> None:
    """Without this, Typer would take `compact` for the whole of `orders snapshots`."""


@snapshots.command()
def compact(
    every: Annotated[int, typer.Option(min=1, help="Keep orders that grew by so many events.")] = 100,
    from_start: Annotated[bool, typer.Option("--from-start", help="Look at the whole log again.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Keep a snapshot of every order that grew since its last one. The projector does this in the background."""
    from cli.snapshots import CompactionFailed, compact_snapshots
    from cli.stack.addresses import NoDatabase, find_database

    try:
        kept = compact_snapshots(find_database(data_dir, "projector"), every, from_start=from_start)
    except (NoDatabase, CompactionFailed) as error:
        _fail(str(error), code=1)
    print(f"kept {kept} snapshots")


@projections.callback()
def _projections() -> None:
    """Without this, Typer would take `status` for the whole of `orders projections`."""


@projections.command()
def status(
    query_url: Annotated[str | None, typer.Option(help="Query service. Default: the running stack's.")] = None,
    tracebacks: Annotated[bool, typer.Option("--tracebacks", help="Of events that could not be applied.")] = False,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """How far each read model is behind the log, and which events it could not apply."""
    from cli.projection_admin.status import NoAnswer, show_status

    try:
        show_status(query_url, data_dir, tracebacks=tracebacks)
    except NoAnswer as error:
        _fail(str(error), code=1)


ReadModel = Annotated[str, typer.Argument(metavar="NAME", help="Such as orders or revenue_by_day.")]


@projections.command()
def rebuild(name: ReadModel, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Build a read model anew beside the live one, compare it with the log, and switch to it.

    Interrupted, it goes on where it was when it is started again; `drop` gives it up.
    """
    _do_with_generations("rebuild", name, data_dir)


@projections.command()
def verify(name: ReadModel, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Compare every document of the live read model with a plain fold of the log; exit 1 where they differ."""
    _do_with_generations("verify", name, data_dir)


@projections.command()
def rollback(name: ReadModel, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Answer queries from the generation before again, once it has caught up."""
    _do_with_generations("rollback", name, data_dir)


@projections.command()
def drop(name: ReadModel, data_dir: DataDir = DEFAULT_DATA_DIR) -> None:
    """Remove the generation that was kept for a rollback, and one whose rebuild was given up."""
    _do_with_generations("drop", name, data_dir)


@projections.command()
def retry(
    name: ReadModel,
    order_id: Annotated[str | None, typer.Argument(help="One that is parked. Default: all of them.")] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a projector to do it.")] = 30.0,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Try events again that could not be applied, after what was wrong was mended; exit 1 where that fails again."""
    from cli.projection_admin.admin import Failed
    from cli.projection_admin.parked import retry as ask_retry

    try:
        ask_retry(name, order_id, wait, data_dir)
    except Failed as error:
        _fail(str(error), code=1)


def _do_with_generations(deed: Literal["rebuild", "verify", "rollback", "drop"], name: str, data_dir: Path) -> None:
    from cli.projection_admin.admin import Failed, do

    try:
        do(deed, name, data_dir)
    except Failed as error:
        _fail(str(error), code=1)


def _fail(message: str, code: int) -> NoReturn:
    typer.echo(f"orders: {message}", err=True)
    raise typer.Exit(code)
