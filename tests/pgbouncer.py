"""A PgBouncer of a test's own, where the program is installed (Debian: `pgbouncer`); it comes in no wheel."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias
from urllib.parse import urlsplit

import pytest

from cli.stack.accounts import nobody
from cli.stack.embedded_server import HOST, bare_environment, free_port
from cli.stack.processes import last_lines, launch
from tests.roles import PASSWORDS
from tests.running import wait_until

PoolMode: TypeAlias = Literal["session", "transaction", "statement"]

_PROGRAM = shutil.which("pgbouncer", path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin")

needs_pgbouncer = pytest.mark.skipif(_PROGRAM is None, reason="PgBouncer is not installed")


@contextmanager
def running_pgbouncer(directory: Path, database_url: str, pool_mode: PoolMode, port: int = 0) -> Iterator[int]:
    """With default settings but for the mode, in front of the server of that URL, for its roles; yields its port."""
    assert _PROGRAM is not None
    server, port = urlsplit(database_url), port or free_port()
    directory.mkdir(mode=0o755)
    users, configuration, log = (directory / name for name in ("users.txt", "pgbouncer.ini", "pgbouncer.log"))
    passwords = {**PASSWORDS, str(server.username): str(server.password)}
    users.write_text("".join(f'"{user}" "{password}"\n' for user, password in passwords.items()))
    configuration.write_text(
        f"""[databases]
* = host={server.hostname} port={server.port}
[pgbouncer]
listen_addr = {HOST}
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users.name}
pool_mode = {pool_mode}
"""
    )
    process = launch(
        [_PROGRAM, configuration.name],
        log=log,
        env=bare_environment(),
        death_signal=signal.SIGTERM,
        account=nobody() if os.geteuid() == 0 else None,  # it refuses to run as root
        directory=directory,  # which that user need not reach by its path
    )
    try:
        wait_until(lambda: "process up" in last_lines(log, 20), "PgBouncer is up")
        yield port
    finally:
        process.terminate()
        process.wait()
