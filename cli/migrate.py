"""`orders migrate`: bring a database to the newest schema."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import asyncpg

from cli.stack import running_stack
from shared.migrations import ChangedMigrationError, migrate
from shared.settings import RolePasswords


class MigrationFailed(Exception):
    """No database, no connection, or a migration that was refused; the message says which."""


def migrate_database(data_dir: Path) -> list[str]:
    """Migrate DATABASE_URL, else the stack that runs in `data_dir`, and set the roles' passwords that are in the
    environment. The names applied. Raises MigrationFailed."""
    stack = running_stack(data_dir)
    url = os.environ.get("DATABASE_URL") or (stack.database_url if stack else None)
    if not url:
        raise MigrationFailed(f"no database: set DATABASE_URL, or start a stack (nothing runs in {data_dir})")
    try:
        return asyncio.run(migrate(url, RolePasswords().by_role()))
    except (OSError, ValueError, asyncpg.PostgresError, asyncpg.InterfaceError, ChangedMigrationError) as error:
        raise MigrationFailed(str(error)) from error
