"""`orders migrate`: bring a database to the newest schema."""

from __future__ import annotations

import asyncio
from pathlib import Path

import asyncpg

from cli.stack.addresses import NoDatabase, find_database
from shared.migrations import IncompatibleDatabase, migrate
from shared.postgres import CONNECTION_LOST
from shared.settings import RolePasswords


class MigrationFailed(Exception):
    """No database, no connection, or a migration that was refused; the message says which."""


def migrate_database(data_dir: Path) -> list[str]:
    """Migrate DATABASE_URL, else the stack that runs in `data_dir`, and set the roles' passwords that are in the
    environment. The names applied. Raises MigrationFailed."""
    try:
        return asyncio.run(migrate(find_database(data_dir), RolePasswords().by_role()))
    except (*CONNECTION_LOST, asyncpg.PostgresError, ValueError, NoDatabase, IncompatibleDatabase) as error:
        raise MigrationFailed(str(error)) from error
