"""`orders up`: the whole stack in one terminal."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cli.options import DEFAULT_DATA_DIR

Fulfilment = Literal["off", "orchestrated", "choreographed"]
Port = typer.Option(min=1, max=65535)


def up(
    data_dir: Annotated[Path, typer.Option(help="Where the embedded servers keep their data.")] = DEFAULT_DATA_DIR,
    command_port: Annotated[int, Port] = 8001,
    query_port: Annotated[int, Port] = 8002,
    projector_port: Annotated[
        int | None, typer.Option(min=1, max=65535, help="Health and metrics. Default: any free port.")
    ] = None,
    *,
    fulfilment: Annotated[
        Fulfilment,
        typer.Option(
            envvar="FULFILMENT", help="What fulfils orders. Without PAYMENT_GATEWAY_URL, a sandbox is started."
        ),
    ] = "off",
    auth: Annotated[bool, typer.Option("--auth", help="Ask for bearer tokens, which `orders token` prints.")] = False,
) -> None:
    """Start the whole stack in this terminal.

    Embedded PostgreSQL and Valkey, unless DATABASE_URL and REDIS_URL name others; migrations; command service,
    projector and query service; with --fulfilment, the process runner. A process that
    dies is restarted. Ctrl-C stops all of them.
    """
    from cli.stack.runner import run_stack

    run_stack(data_dir, command_port, query_port, projector_port, fulfilment=fulfilment, auth=auth)
