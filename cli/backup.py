"""`orders backup` and `orders restore`: the log, its seals and keys as files of a directory, and back."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from cli.failure import BadArgument
from cli.options import DataDir, Json

SEALS, PUBLIC_KEY, PRIVATE_KEY = "seals.jsonl", "seal.pub.pem", "seal.pem"  # names in a backup


def backup(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="To be made; for its owner only.")],
    seals: Annotated[Path | None, typer.Option(help="Copy this file of seals, too.")] = None,
    public_key: Annotated[Path | None, typer.Option(help="PEM of the key the seals were made with.")] = None,
    key: Annotated[Path | None, typer.Option(help="Copy the private key, too; keep it from the log's owners.")] = None,
    data_dir: DataDir = None,
    *,
    json: Json = False,
) -> None:
    """Write a backup of the log, with its seals and keys, while services run.

    The log's ids and the Idempotency-Keys belong to it; read models do not, they are folded again from the log. Needs
    the rights of the database's owner: DATABASE_URL as orders_migrator, or the running stack's.
    """
    from cli.auditing.keys import load_private_key, load_public_key
    from cli.auditing.seals import read_seals
    from cli.backups.backup import back_up
    from cli.progress import progress_bar
    from cli.stack.addresses import find_database
    from cli.tables import print_fields

    if (seals is None) != (public_key is None):
        raise BadArgument("--seals and --public-key go together")
    files: dict[str, Path] = {}
    if seals is not None and public_key is not None:
        read_seals(seals, load_public_key(public_key))
        files |= {SEALS: seals, PUBLIC_KEY: public_key}
    if key is not None:
        load_private_key(key)
        files[PRIVATE_KEY] = key
    url = find_database(data_dir)
    with progress_bar("copying") as progress:
        manifest = asyncio.run(back_up(url, directory, files, progress))
    fields = {
        "log": manifest.log_id,
        "position": manifest.position,
        "hash": manifest.hash,
        "backup": str(directory),
        "files": sorted(manifest.files),
    }
    print_fields(fields, as_json=json)


def restore(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Made by `orders backup`.")],
    reason: Annotated[str, typer.Option(help="Why, for auditors: one line, at most 500 characters.")],
    data_dir: DataDir = None,
    *,
    json: Json = False,
) -> None:
    """Load a backup into the log of a new database, and give the log a new id.

    All of it or nothing; services may run meanwhile. Needs the rights of the database's owner: DATABASE_URL as
    orders_migrator, or the running stack's.
    """
    from cli.backups.restore import restore as load
    from cli.new_log_id import check_reason
    from cli.stack.addresses import find_database
    from cli.tables import print_fields

    check_reason(reason)
    restored = asyncio.run(load(find_database(data_dir), directory, reason))
    print_fields(restored._asdict(), as_json=json)
