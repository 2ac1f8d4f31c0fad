"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DEFAULT_DATA_DIR = Path(".orders")

DataDir = Annotated[Path, typer.Option(help="Data directory of the running stack.")]
AuditorDatabaseUrl = Annotated[
    str | None,
    typer.Option(envvar="AUDITOR_DATABASE_URL", help="Default: DATABASE_URL, else the running stack's.", metavar="URL"),
]
