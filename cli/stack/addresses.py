"""Which servers a command connects to: those of the environment, else those of the stack that runs."""

from __future__ import annotations

import os
from pathlib import Path

from cli.failure import CommandFailed
from cli.stack.descriptor import Role, running_stack


class NoAddress(CommandFailed):
    """No address was given and no stack runs."""


def find_database(data_dir: Path, role: Role | None = None, given: str | None = None) -> str:
    """The PostgreSQL URL that was given, else DATABASE_URL, else that of the stack that runs in `data_dir`.

    The stack's URL is that of `role`; of the owner of the database for None. Raises NoAddress.
    """
    if url := given or os.environ.get("DATABASE_URL"):
        return url
    if (stack := running_stack(data_dir)) is None or not stack.database_url:
        raise NoAddress(f"no database: set DATABASE_URL, or start a stack (nothing runs in {data_dir})")
    return stack.database_url if role is None else stack.database_url_of(role)


def find_redis(data_dir: Path) -> str:
    """REDIS_URL, else that of the stack that runs in `data_dir`. Raises NoAddress."""
    if url := os.environ.get("REDIS_URL"):
        return url
    if (stack := running_stack(data_dir)) is None or not stack.redis_url:
        raise NoAddress(f"no Redis: set REDIS_URL, or start a stack (nothing runs in {data_dir})")
    return stack.redis_url
