"""`orders keys`: the keys of personal data: wrap them with a new secret, list those that erasures destroyed."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Annotated

import typer

from cli.failure import BadArgument, CommandFailed
from cli.options import DEFAULT_DATA_DIR, AuditorDatabaseUrl, DataDir, Json

keys = typer.Typer(help="The keys of personal data.", no_args_is_help=True)


@keys.command()
def rotate(
    file: Annotated[
        Path | None,
        typer.Option(
            help="Of secrets, one a line. Default: KEY_ENCRYPTION_KEY_FILE, else the stack's.", dir_okay=False
        ),
    ] = None,
    data_dir: DataDir = None,
    *,
    json: Json = False,
) -> None:
    """Put a new secret in front of the file, and wrap every key with it, while services run.

    They read the file again when they need to. With KEY_ENCRYPTION_KEY instead of a file, set `<new>,<old>` for every
    service first: this wraps every key with the new one. Needs the rights of the database's owner: DATABASE_URL as
    orders_migrator, or the running stack's.
    """
    import asyncpg

    from cli.stack.addresses import find_database
    from cli.tables import print_fields
    from shared.postgres import CONNECT_SECONDS, CONNECTION_LOST
    from shared.privacy.key_encryption import (
        CannotUnwrap,
        KeyEncryption,
        UnusableSecrets,
        read_secrets,
        split_secrets,
    )
    from shared.privacy.rotation import ROTATE_ALONE, add_secret, wrap_anew

    path = None if file is None else _checked(file)
    url = find_database(data_dir)
    named = "KEY_ENCRYPTION_KEY_FILE" in os.environ
    given = os.environ.get("KEY_ENCRYPTION_KEY") if path is None and data_dir is None and not named else None
    if path is None and not given:
        path = _default_file(data_dir)

    async def rotated() -> int:
        connection = await asyncpg.connect(
            url, timeout=CONNECT_SECONDS, server_settings={"application_name": "orders-keys"}
        )
        try:
            if not await connection.fetchval(ROTATE_ALONE):
                raise CommandFailed("another `orders keys rotate` runs")
            if path is None:
                secrets = split_secrets(given or "")
                return await wrap_anew(connection, KeyEncryption(lambda: secrets))
            await add_secret(connection, path)
            return await wrap_anew(connection, KeyEncryption(lambda: read_secrets(path)))
        finally:
            await connection.close()

    try:
        wrapped = asyncio.run(rotated())
    except (UnusableSecrets, CannotUnwrap) as error:
        raise BadArgument(str(error)) from error
    except (*CONNECTION_LOST, asyncpg.PostgresError) as error:
        raise CommandFailed(str(error) or repr(error)) from error
    print_fields({"keys_wrapped": wrapped}, as_json=json)


@keys.command()
def erasures(database_url: AuditorDatabaseUrl = None, data_dir: DataDir = None) -> None:
    """Print the register of erasures, a line of JSON for each key that was destroyed.

    Keep it outside, as you keep seals, and newer than any backup: `orders log new-id --erasures FILE` destroys again
    what a restored backup brought back.
    """
    import asyncpg

    from cli.stack.addresses import find_database
    from shared.postgres import CONNECT_SECONDS, CONNECTION_LOST
    from shared.privacy.erasure_register import encode, read_destroyed

    url = find_database(data_dir, "auditor", database_url)

    async def read() -> str:
        connection = await asyncpg.connect(
            url, timeout=CONNECT_SECONDS, server_settings={"application_name": "orders-keys"}
        )
        try:
            return encode(await read_destroyed(connection))
        finally:
            await connection.close()

    try:
        print(asyncio.run(read()), end="")
    except (*CONNECTION_LOST, asyncpg.PostgresError, ValueError) as error:
        raise CommandFailed(str(error) or repr(error)) from error


def _default_file(data_dir: Path | None) -> Path:
    """Raises BadArgument."""
    from cli.stack.descriptor import key_encryption_key_file

    named = os.environ.get("KEY_ENCRYPTION_KEY_FILE") if data_dir is None else None
    return _checked(Path(named) if named else key_encryption_key_file(data_dir or DEFAULT_DATA_DIR))


def _checked(path: Path) -> Path:
    """Raises BadArgument."""
    if not path.is_file():
        raise BadArgument(f"there is no file of secrets at {path}; name it with --file")
    return path
