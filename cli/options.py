"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_DATA_DIR = Path(".orders")

# None where it was not given: then the environment counts, and else the default directory.
DataDir = Annotated[
    Path | None, typer.Option(help=f"Data directory of a running stack. Default: {DEFAULT_DATA_DIR}, if any.")
]
AuditorDatabaseUrl = Annotated[
    str | None,
    typer.Option(help="Default: AUDITOR_DATABASE_URL, else DATABASE_URL, else the running stack's.", metavar="URL"),
]
TokenFile = Annotated[
    Path | None,
    typer.Option(help="File with a bearer token, for services with AUTH=jwt. Default: the variable ORDERS_TOKEN."),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON instead.")]
