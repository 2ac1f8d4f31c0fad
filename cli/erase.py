"""`orders erase`: erase a customer, through the command API."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import typer

from cli.failure import CommandFailed
from cli.options import DataDir, Json, TokenFile

SECONDS = 30.0

# As `ErasureReason`, which takes long to import.
Reason: TypeAlias = Literal["customer-request", "consent-withdrawn", "retention-ended", "other"]


def erase(
    customer_id: Annotated[str, typer.Argument(metavar="CUSTOMER_ID")],
    reason: Annotated[Reason, typer.Option(help="Kept in the event.")] = "customer-request",
    command_url: Annotated[
        str | None, typer.Option(help="Command service. Default: COMMAND_URL, else the running stack's.")
    ] = None,
    token_file: TokenFile = None,
    data_dir: DataDir = None,
    *,
    json: Json = False,
) -> None:
    """Destroy the key of what is known about a customer, for ever. Orders stay, without the person.

    With AUTH=jwt, the token needs the role privacy.
    """
    from urllib.parse import quote

    import httpx

    from cli.bearer_token import BearerToken
    from cli.stack.addresses import find_command_url
    from cli.tables import print_fields

    url = find_command_url(data_dir, command_url)
    path = f"{url}/customers/{quote(customer_id, safe='')}/erasure"
    try:
        answer = httpx.post(path, json={"reason": reason}, auth=BearerToken(token_file), timeout=SECONDS)
        answered = answer.json()
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise CommandFailed(f"the command service did not answer: {error!r}") from error
    if not answer.is_success:
        raise CommandFailed(f"{answered.get('code')}: {answered.get('detail')}")
    print_fields({name: answered[name] for name in ("aggregate_id", "version", "position")}, as_json=json)
