"""Which servers a command connects to: those of the environment, else those of the stack that runs."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, urlsplit

from cli.failure import CommandFailed
from cli.stack.descriptor import Role, running_stack


class NoAddress(CommandFailed):
    """No address was given and no stack runs."""


def find_database(data_dir: Path, role: Role | None = None, given: str | None = None) -> str:
    """The PostgreSQL URL that was given, else DATABASE_URL, else that of the stack that runs in `data_dir`.

    The stack's URL is that of `role`; of the owner of the database for None. So is a DATABASE_URL that names no user,
    with the role's password in the environment (`AUDITOR_PASSWORD`, ...). Raises NoAddress.
    """
    if given:
        return given
    if url := os.environ.get("DATABASE_URL"):
        return url if role is None else _as_role(url, role)
    if (stack := running_stack(data_dir)) is None or not stack.database_url:
        raise NoAddress(f"no database: set DATABASE_URL, or start a stack (nothing runs in {data_dir})")
    return stack.database_url if role is None else stack.database_url_of(role)


def find_snapshot_key(data_dir: Path) -> bytes:
    """SNAPSHOT_KEY, else that of the stack that runs in `data_dir`. Raises NoAddress."""
    if key := os.environ.get("SNAPSHOT_KEY"):
        return key.encode()
    if (stack := running_stack(data_dir)) is None or not stack.snapshot_key:
        raise NoAddress(f"no key of snapshots: set SNAPSHOT_KEY, or start a stack (nothing runs in {data_dir})")
    return stack.snapshot_key.encode()


def find_redis(data_dir: Path) -> str:
    """REDIS_URL, else that of the stack that runs in `data_dir`. Raises NoAddress."""
    if url := os.environ.get("REDIS_URL"):
        return url
    if (stack := running_stack(data_dir)) is None or not stack.redis_url:
        raise NoAddress(f"no Redis: set REDIS_URL, or start a stack (nothing runs in {data_dir})")
    return stack.redis_url


def _as_role(url: str, role: Role) -> str:
    parts, password = urlsplit(url), os.environ.get(f"{role.upper()}_PASSWORD")
    if parts.username is not None or not password:
        return url
    return parts._replace(netloc=f"orders_{role}:{quote(password, safe='')}@{parts.netloc}").geturl()
