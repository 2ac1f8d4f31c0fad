"""`orders projections`: the state of the read models, and their generations."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.options import DataDir, Json, TokenFile

projections = typer.Typer(help="The read models.", no_args_is_help=True)

ReadModel = Annotated[str, typer.Argument(metavar="NAME", help="Such as orders or revenue_by_day.")]


@projections.command()
def status(
    query_url: Annotated[
        str | None,
        typer.Option(
            envvar=["OPERATIONS_URL", "QUERY_URL"],
            help="Query service, at its OPERATIONS_PORT where it has one. Default: the running stack's.",
        ),
    ] = None,
    tracebacks: Annotated[bool, typer.Option("--tracebacks", help="Of events that could not be applied.")] = False,
    token_file: TokenFile = None,
    data_dir: DataDir = None,
    *,
    json: Json = False,
) -> None:
    """How far each read model is behind the log, and which events it could not apply."""
    from cli.bearer_token import BearerToken
    from cli.projection_admin.status import show_status

    show_status(query_url, data_dir, token=BearerToken(token_file), tracebacks=tracebacks, as_json=json)


@projections.command()
def rebuild(name: ReadModel, data_dir: DataDir = None) -> None:
    """Build a read model anew beside the live one, compare it with the log, and switch to it.

    A rebuild that was interrupted continues when it is started again; `drop` gives it up.
    """
    from cli.projection_admin.admin import ProjectionAdmin, administer

    administer(name, data_dir, ProjectionAdmin.rebuild)


@projections.command()
def verify(name: ReadModel, data_dir: DataDir = None) -> None:
    """Compare every document of the live read model with a plain fold of the log; exit 1 where they differ."""
    from cli.projection_admin.admin import ProjectionAdmin, administer

    administer(name, data_dir, ProjectionAdmin.verify)


@projections.command()
def rollback(name: ReadModel, data_dir: DataDir = None) -> None:
    """Answer queries from the previous generation again, once it has caught up."""
    from cli.projection_admin.admin import ProjectionAdmin, administer

    administer(name, data_dir, ProjectionAdmin.rollback)


@projections.command()
def drop(name: ReadModel, data_dir: DataDir = None) -> None:
    """Remove the generation that was kept for a rollback, and one whose rebuild was given up."""
    from cli.projection_admin.admin import ProjectionAdmin, administer

    administer(name, data_dir, ProjectionAdmin.drop)


@projections.command()
def retry(
    name: ReadModel,
    document_id: Annotated[
        str | None, typer.Argument(metavar="[ID]", help="A document that is parked. Default: all of them.")
    ] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for a projector to do it.")] = 30.0,
    data_dir: DataDir = None,
) -> None:
    """Apply events again that could not be applied, after the fault is mended; exit 1 where that fails again."""
    from functools import partial

    from cli.projection_admin.admin import administer
    from cli.projection_admin.parked import retry_parked

    administer(name, data_dir, partial(retry_parked, document_id=document_id, seconds=wait))
