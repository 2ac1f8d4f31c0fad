"""Migrates the database of `orders up`, within its process: to start another takes longer than to migrate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import asyncpg

from cli.failure import CommandFailed
from cli.stack.supervisor import StopSignals
from shared.migrations import MigrationRefused, migrate

TICK_SECONDS = 0.05


class MigrationFailed(CommandFailed):
    """The database cannot be reached, or refused a migration; the message says which."""


def migrate_stack(
    database_url: str, passwords: Mapping[str, str], signals: StopSignals, tell: Callable[[str], None]
) -> list[str]:
    """Migrate, and give the roles `passwords`, by role; `tell` prints a line for the user. The names applied. Raises
    MigrationFailed, StopRequested."""
    try:
        return asyncio.run(_migrate(database_url, passwords, signals, tell))
    except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, ValueError, MigrationRefused) as error:
        raise MigrationFailed(f"migrations failed: {error}") from error


async def _migrate(
    database_url: str, passwords: Mapping[str, str], signals: StopSignals, tell: Callable[[str], None]
) -> list[str]:
    migration = asyncio.create_task(migrate(database_url, passwords, tell))
    while not migration.done():
        signals.check()
        await asyncio.wait({migration}, timeout=TICK_SECONDS)
    return await migration
