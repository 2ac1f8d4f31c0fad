"""Which servers a command connects to: those of a directory that was named, else those of the environment, else those
of the stack that runs in the default directory."""

from __future__ import annotations

import os
from pathlib import Path
from urllib.parse import quote, urlsplit

from cli.failure import BadArgument, CommandFailed
from cli.options import DEFAULT_DATA_DIR
from cli.stack.descriptor import Role, Stack, running_stack


class NoAddress(CommandFailed):
    """No address was given and no stack runs, or none in the directory that was named."""


def find_stack(data_dir: Path | None) -> Stack | None:
    """The stack that runs in `data_dir`; for None, the one of the default directory, if any. Raises NoAddress."""
    stack = running_stack(data_dir or DEFAULT_DATA_DIR)
    if stack is None and data_dir is not None:
        raise NoAddress(f"no stack: {_nothing_runs(data_dir)}")
    return stack


def find_database(data_dir: Path | None, role: Role | None = None, given: str | None = None) -> str:
    """The PostgreSQL URL that was given, else that of the stack that runs in `data_dir`; for None, DATABASE_URL (for an
    auditor, AUDITOR_DATABASE_URL comes before it), else that of the stack in the default directory.

    The stack's URL is that of `role`; of the owner of the database for None. So is a DATABASE_URL that names no user,
    with the role's password in the environment (`AUDITOR_PASSWORD`, ...). Raises NoAddress, BadArgument.
    """
    if given and data_dir is not None:
        raise BadArgument("--database-url and --data-dir name two databases: give one of them")
    if url := given or (of_environment(data_dir, "AUDITOR_DATABASE_URL") if role == "auditor" else None):
        return url
    if url := of_environment(data_dir, "DATABASE_URL"):
        return url if role is None else _as_role(url, role)
    stack = _running(data_dir, "database", "database_url")
    return stack.database_url if role is None else stack.database_url_of(role)


def find_redis(data_dir: Path | None) -> str:
    """The URL of the stack that runs in `data_dir`; for None, REDIS_URL, else that of the stack in the default
    directory. Raises NoAddress."""
    return of_environment(data_dir, "REDIS_URL") or _running(data_dir, "Redis", "redis_url").redis_url


def find_command_url(data_dir: Path | None, given: str | None = None) -> str:
    """The URL of the command service that was given, else that of the stack that runs in `data_dir`; for None,
    COMMAND_URL, else that of the stack in the default directory. Raises NoAddress."""
    return (
        given
        or of_environment(data_dir, "COMMAND_URL")
        or _running(data_dir, "command service", "command_url").command_url
    )


def find_query_url(data_dir: Path | None, given: str | None = None) -> str:
    """The URL of the query service that was given, else that of the stack that runs in `data_dir`; for None, QUERY_URL,
    else that of the stack in the default directory. Raises NoAddress."""
    return given or of_environment(data_dir, "QUERY_URL") or _running(data_dir, "query service", "query_url").query_url


def find_snapshot_key(data_dir: Path | None) -> bytes:
    """The key of the stack that runs in `data_dir`; for None, SNAPSHOT_KEY, else that of the stack in the default
    directory. Raises NoAddress."""
    key = (
        of_environment(data_dir, "SNAPSHOT_KEY") or _running(data_dir, "key of snapshots", "snapshot_key").snapshot_key
    )
    return key.encode()


def of_environment(data_dir: Path | None, variable: str) -> str | None:
    """The variable's value; nothing where a directory was named: an option counts more than a variable that was set at
    some other time."""
    return os.environ.get(variable) if data_dir is None else None


def _as_role(url: str, role: Role) -> str:
    parts, password = urlsplit(url), os.environ.get(f"{role.upper()}_PASSWORD")
    if parts.username is not None or not password:
        return url
    return parts._replace(netloc=f"orders_{role}:{quote(password, safe='')}@{parts.netloc}").geturl()


def _running(data_dir: Path | None, server: str, address: str) -> Stack:
    """A stack that has that address. Raises NoAddress."""
    stack = running_stack(data_dir or DEFAULT_DATA_DIR)
    if stack is None or not getattr(stack, address):
        start = f"set {address.upper()}, or start a stack (nothing runs in {DEFAULT_DATA_DIR})"
        raise NoAddress(f"no {server}: {start if data_dir is None else _nothing_runs(data_dir)}")
    return stack


def _nothing_runs(data_dir: Path) -> str:
    return f"nothing runs in {data_dir}; start a stack there, or leave out --data-dir"
