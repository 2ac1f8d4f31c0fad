"""`orders import`: place the orders of an Online Retail CSV through the command API."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cli.options import DataDir, TokenFile

if TYPE_CHECKING:
    from cli.importer.file_import import Services

DEFAULT_COMMAND_URL = "http://127.0.0.1:8001"
DEFAULT_QUERY_URL = "http://127.0.0.1:8002"
CONCURRENCY = 64  # fewer leave log and service idle at times; more only lengthen the service's queue


def import_orders(
    file: Annotated[
        Path, typer.Argument(exists=True, dir_okay=False, help="Online Retail (II) CSV; plain, gzipped or zipped.")
    ],
    command_url: Annotated[
        str | None,
        typer.Option(
            help="Command service. Default: COMMAND_URL, else the running stack's, else " + DEFAULT_COMMAND_URL
        ),
    ] = None,
    query_url: Annotated[
        str | None,
        typer.Option(
            help="Query service, for orders that are there. Default: QUERY_URL, else beside the command service."
        ),
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="CSV of the refused invoices. Default: <FILE stem>.rejects.csv here.")
    ] = None,
    date_order: Annotated[
        Literal["dmy", "mdy"] | None, typer.Option(help="Day or month first, where the file leaves it open.")
    ] = None,
    returns: Annotated[
        bool, typer.Option("--returns", help="Book credit notes on the orders that they take back.")
    ] = False,
    concurrency: Annotated[int, typer.Option(min=1, max=1000, help="Requests under way at a time.")] = CONCURRENCY,
    patience: Annotated[float, typer.Option(min=0, help="Seconds to keep trying while the service is away.")] = 30.0,
    token_file: TokenFile = None,
    data_dir: DataDir = None,
) -> None:
    """Place the orders of an Online Retail CSV through the command API.

    One invoice is one order. Refused invoices go to the rejects file with the reason, and so do those that are in the
    log with other content. A second run places the orders that are missing and changes nothing else.

    With --returns, credit notes are booked as returns and refunds: each line on the customer's latest purchases of the
    product that are not returned yet. Lines without such purchases go to the rejects file.

    Exit code 0: every invoice is in the log or in the rejects file. 1: the outcome of some orders is not known yet.
    2: the arguments or the file make no sense.
    """
    from cli.bearer_token import BearerToken
    from cli.importer.file_import import import_file

    services, token = _services(command_url, query_url, data_dir), BearerToken(token_file)
    import_file(
        file,
        services,
        token,
        rejects,
        date_order=date_order,
        returns=returns,
        concurrency=concurrency,
        patience=patience,
    )


def _services(command_url: str | None, query_url: str | None, data_dir: Path | None) -> Services:
    """A gateway has both services at one address, so that of the commands is taken for both where it alone is given."""
    from cli.importer.file_import import Services
    from cli.stack.addresses import find_stack, of_environment

    stack = find_stack(data_dir)
    command_url = command_url or of_environment(data_dir, "COMMAND_URL")
    query_url = query_url or of_environment(data_dir, "QUERY_URL")
    if stack is not None and command_url in (None, stack.command_url):
        return Services(stack.command_url, query_url or stack.query_url or stack.command_url)
    if command_url in (None, DEFAULT_COMMAND_URL):
        return Services(DEFAULT_COMMAND_URL, query_url or DEFAULT_QUERY_URL)
    return Services(command_url, query_url or command_url)
