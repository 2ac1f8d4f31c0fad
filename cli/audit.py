"""`orders audit`: verify the log, seal its head, export it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated
from uuid import UUID

import typer

from cli.failure import BadArgument
from cli.options import AuditorDatabaseUrl, DataDir, Json

audit = typer.Typer(help="The log as evidence.", no_args_is_help=True)


@audit.command()
def verify(
    seals: Annotated[Path | None, typer.Option(help="Check the log against these seals, too.")] = None,
    public_key: Annotated[Path | None, typer.Option(help="PEM of the key the seals were made with.")] = None,
    from_last_seal: Annotated[bool, typer.Option("--from-last-seal", help="Trust what was sealed last.")] = False,
    log_id: Annotated[UUID | None, typer.Option(help="The log that this must be.")] = None,
    database_url: AuditorDatabaseUrl = None,
    data_dir: DataDir = None,
    *,
    json: Json = False,
) -> None:
    """Read the log and recompute every hash.

    Exit code 0: intact; prints the head. 1: prints the first bad position and what is wrong there. 2: nothing could be
    verified.
    """
    from cli.auditing.keys import load_public_key
    from cli.auditing.seals import read_seals
    from cli.auditing.terminal import print_verification, verify_log

    if (seals is None) != (public_key is None) or (from_last_seal and seals is None):
        raise BadArgument("--seals and --public-key go together, and --from-last-seal needs them")
    known = [] if seals is None or public_key is None else read_seals(seals, load_public_key(public_key))
    url = _database_url(database_url, data_dir)
    verification = asyncio.run(verify_log(url, known, log_id=log_id, from_last_seal=from_last_seal))
    more = {}
    if known:
        newest = max(known, key=lambda seal: seal.position)
        more["seals"] = f"{len(known)} agree, the newest of {newest.sealed_at} at position {newest.position}"
    print_verification(verification, more, as_json=json)


@audit.command()
def seal(
    seals: Annotated[Path, typer.Option(help="File to append the seal to; created when it does not exist.")],
    key: Annotated[Path | None, typer.Option(help="PEM of the private key. Default: ORDERS_SEAL_KEY.")] = None,
    database_url: AuditorDatabaseUrl = None,
    data_dir: DataDir = None,
    *,
    json: Json = False,
) -> None:
    """Sign the head of the log, having verified what came after the last seal.

    Exit code 0: sealed. 1: the log is not intact or contradicts a seal; nothing sealed. 2: nothing could be done.
    """
    from cli.auditing.errors import CannotAudit
    from cli.auditing.keys import load_private_key
    from cli.auditing.seal_file import open_seal_file
    from cli.auditing.seals import read_seals, seal_head
    from cli.auditing.terminal import print_verification, verify_log

    url = _database_url(database_url, data_dir)
    private_key = load_private_key(key)
    with open_seal_file(seals) as file:
        known = [] if file.empty else read_seals(seals, private_key.public_key())
        verification = asyncio.run(verify_log(url, known, from_last_seal=True))
        if verification.result.finding is None:
            if verification.head.position == 0:
                raise CannotAudit("the log is empty: there is nothing to seal yet")
            file.append(seal_head(verification.head, private_key))
    print_verification(verification, {"sealed": f"in {seals}"}, as_json=json)


@audit.command()
def keygen(
    key: Annotated[Path, typer.Option(help="File for the private key; only its owner can read it.")],
    public_key: Annotated[Path, typer.Option(help="File for the public key.")],
    *,
    json: Json = False,
) -> None:
    """Make a pair of keys to seal with."""
    from cli.auditing.keys import key_id, make_keys
    from cli.tables import print_fields

    print_fields({"key_id": key_id(make_keys(key, public_key))}, as_json=json)


@audit.command()
def export(
    first: Annotated[int, typer.Option("--from", min=1, help="First position.")] = 1,
    last: Annotated[int | None, typer.Option("--to", min=1, help="Last position. Default: the head.")] = None,
    output: Annotated[Path | None, typer.Option(help="File to write. Default: standard output.")] = None,
    database_url: AuditorDatabaseUrl = None,
    data_dir: DataDir = None,
) -> None:
    """Write events as JSON Lines, with hashes."""
    from cli.auditing.terminal import export_to

    if last is not None and last < first:
        raise BadArgument("--to comes before --from")
    asyncio.run(export_to(output, _database_url(database_url, data_dir), first, last))


def _database_url(given: str | None, data_dir: Path | None) -> str:
    from cli.auditing.errors import CannotAudit
    from cli.stack.addresses import NoAddress, find_database

    try:
        return find_database(data_dir, "auditor", given)
    except NoAddress as error:
        raise CannotAudit(str(error)) from error
