"""`orders migrate`: bring a database to the newest schema."""

from __future__ import annotations

import asyncio
import sys

from cli.failure import CommandFailed
from cli.options import DataDir


def migrate(data_dir: DataDir = None) -> None:
    """Bring the database to the newest schema: DATABASE_URL, or the running stack's.

    Sets the passwords of the roles for which the environment has one.
    """
    import asyncpg

    from cli.stack.addresses import find_database
    from shared.migrations import MigrationRefused
    from shared.migrations import migrate as apply_migrations
    from shared.postgres import CONNECTION_LOST
    from shared.settings import RolePasswords

    url = find_database(data_dir)
    try:
        applied = asyncio.run(apply_migrations(url, RolePasswords().by_role(), _warn))
    except asyncpg.InvalidPasswordError as error:
        raise CommandFailed(
            f"{error}. A server keeps the password of its first start: use that one, or change it in the server. To"
            " throw the data away and start afresh with docker compose: docker compose down --volumes"
        ) from error
    except (*CONNECTION_LOST, asyncpg.PostgresError, ValueError, MigrationRefused) as error:
        raise CommandFailed(str(error)) from error
    print("\n".join(f"applied {name}" for name in applied) or "nothing to apply")


def _warn(message: str) -> None:
    print(f"orders: warning: {message}", file=sys.stderr)
