"""Which database a command talks to, and as whom."""

from __future__ import annotations

import os
from pathlib import Path

from cli.stack.descriptor import Role, running_stack


class NoDatabase(Exception):
    """No address was given and no stack runs; the message says so to a person."""


def find_database(data_dir: Path, role: Role | None = None, given: str | None = None) -> str:
    """The address that was given, else DATABASE_URL, else that of the stack that runs in `data_dir`, there as `role`
    (None: as its owner). Raises NoDatabase."""
    if url := given or os.environ.get("DATABASE_URL"):
        return url
    if (stack := running_stack(data_dir)) is None or not stack.database_url:
        raise NoDatabase(f"no database: set DATABASE_URL, or start a stack (nothing runs in {data_dir})")
    return stack.database_url if role is None else stack.database_url_of(role)
