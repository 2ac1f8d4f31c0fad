"""`orders token`: a bearer token for a stack that `orders up --auth` runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.failure import CommandFailed
from cli.options import DEFAULT_DATA_DIR
from shared.identity.caller import Role


def token(
    role: Annotated[list[Role], typer.Option(help="What the caller may do; several are allowed.")],
    sub: Annotated[str, typer.Option(help="The caller: `actor` in the metadata of events.")] = "developer",
    customer_id: Annotated[str | None, typer.Option(help="Whose data the role customer reaches.")] = None,
    minutes: Annotated[int, typer.Option(min=1, max=30 * 24 * 60, help="How long the token is valid.")] = 60,
    data_dir: Annotated[Path, typer.Option(help="Of the stack that runs with --auth.")] = DEFAULT_DATA_DIR,
) -> None:
    """Print a bearer token that the stack of `orders up --auth` accepts.

    Signed with a key in the data directory, for development: `curl -H "Authorization: Bearer $(orders token --role
    staff)" ...`
    """
    from cli.stack.local_issuer import LocalIssuer, NoKey

    if Role.CUSTOMER in role and customer_id is None:
        raise CommandFailed("--role customer needs --customer-id")
    try:
        typer.echo(LocalIssuer(data_dir).token(sub, role, customer_id, minutes * 60))
    except NoKey as error:
        raise CommandFailed(f"{data_dir} has no key to sign with; run `orders up --auth` there first") from error
