"""`orders import`: place the orders of an Online Retail CSV through the command API."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.options import DEFAULT_DATA_DIR, DataDir

DEFAULT_COMMAND_URL = "http://127.0.0.1:8001"
CONCURRENCY = 64  # fewer leave log and service idle at times; more only lengthen the service's queue


def import_orders(
    file: Annotated[Path, typer.Argument(exists=True, dir_okay=False, help="Online Retail CSV, plain or gzipped.")],
    command_url: Annotated[
        str | None,
        typer.Option(
            envvar="COMMAND_URL", help="Command service. Default: the running stack's, else " + DEFAULT_COMMAND_URL
        ),
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="CSV of the refused invoices. Default: <FILE stem>.rejects.csv here.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="Requests under way at a time.")] = CONCURRENCY,
    patience: Annotated[float, typer.Option(min=0, help="Seconds to keep trying while the service is away.")] = 30.0,
    data_dir: DataDir = DEFAULT_DATA_DIR,
) -> None:
    """Place the orders of an Online Retail CSV through the command API.

    One invoice is one order. Refused invoices go to the rejects file with the reason. A second run places the orders
    that are missing and changes nothing else.

    Exit code 0: every invoice is in the log or in the rejects file. 1: the outcome of some orders is not known yet.
    2: the arguments or the file make no sense.
    """
    from cli.importer.file_import import import_file
    from cli.stack.descriptor import running_stack

    stack = running_stack(data_dir)
    url = command_url or (stack and stack.command_url) or DEFAULT_COMMAND_URL
    import_file(file, url, rejects, concurrency=concurrency, patience=patience)
