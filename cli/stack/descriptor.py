"""The descriptor of a stack, `<data-dir>/stack.json`: addresses for other commands, passwords for the next run.

Only its owner can read it. It is replaced atomically.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import msgspec

from cli.stack.processes import identity
from shared.files import replacing

Role = Literal["command", "projector", "query", "auditor"]


class Process(msgspec.Struct, frozen=True):
    """A process, told from a later one with the same process id by its identity."""

    pid: int
    identity: str

    @classmethod
    def of(cls, pid: int) -> Process:
        """The running process `pid`."""
        return cls(pid, identity(pid) or "gone")

    @property
    def alive(self) -> bool:
        """Whether this process still runs."""
        return identity(self.pid) == self.identity


class Stack(msgspec.Struct, kw_only=True):
    """What `orders up` wrote last. Addresses are valid while the supervisor is alive; passwords always are."""

    supervisor: Process | None = None
    command_url: str = ""
    query_url: str = ""
    projector_url: str = ""
    processes_url: str = ""  # empty: no process runner
    sandbox_url: str = ""  # empty: no sandbox
    database_url: str = ""
    redis_url: str = ""
    postgres_password: str | None = None
    valkey_password: str | None = None
    role_passwords: dict[str, str] = {}
    snapshot_key: str = ""
    children: dict[str, Process] = {}

    def database_url_of(self, role: Role) -> str:
        """The URL of the database for that role; DATABASE_URL as it is for a database that is not embedded."""
        if role not in self.role_passwords:
            return self.database_url
        url = urlsplit(self.database_url)
        netloc = f"orders_{role}:{self.role_passwords[role]}@{url.hostname}:{url.port}"
        return url._replace(netloc=netloc).geturl()

    def save(self, data_dir: Path) -> None:
        """Replace the descriptor in `data_dir`."""
        with replacing(data_dir / "stack.json", 0o600) as file:
            file.write(msgspec.json.format(msgspec.json.encode(self)))


def key_encryption_key_file(data_dir: Path) -> Path:
    """Of the stack in `data_dir`: the secrets that wrap the keys of personal data."""
    return data_dir / "key-encryption-keys"


def load_stack(data_dir: Path) -> Stack | None:
    """The descriptor in `data_dir`; None when it does not exist or cannot be read."""
    try:
        return msgspec.json.decode((data_dir / "stack.json").read_bytes(), type=Stack)
    except (FileNotFoundError, NotADirectoryError, PermissionError, msgspec.DecodeError):
        return None


def running_stack(data_dir: Path) -> Stack | None:
    """The stack that runs in `data_dir`; None when none does."""
    stack = load_stack(data_dir)
    return stack if stack is not None and stack.supervisor is not None and stack.supervisor.alive else None


class AlreadyRunning(Exception):
    """Another `orders up` holds the data directory."""


@contextmanager
def data_dir_lock(data_dir: Path) -> Iterator[None]:
    """Locks `data_dir` for one `orders up`. The lock ends with the process. Raises AlreadyRunning."""
    with (data_dir / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise AlreadyRunning from error
        yield
