"""The `orders` command as a user runs it: its output and exit code, in a process of its own or in this one."""

from __future__ import annotations

import importlib
import os
import pty
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from unittest.mock import patch

from typer.testing import CliRunner

from cli.main import app
from cli.stack.service import orders_command

REPOSITORY = Path(__file__).parents[1]
_one_at_a_time = threading.Lock()  # output, environment and directory are those of the whole process


def environment(**added: str) -> dict[str, str]:
    """That of the tests, without addresses of other servers."""
    inherited = {name: value for name, value in os.environ.items() if name not in {"DATABASE_URL", "REDIS_URL"}}
    return {**inherited, "PYTHONPATH": str(REPOSITORY), "COLUMNS": "200", **added}


def start_orders(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] = {}, output: int = subprocess.PIPE
) -> subprocess.Popen[str]:
    """Start `orders ...`. Not a process of asyncio: after those, uvloop's loop sometimes hangs when it is closed."""
    return subprocess.Popen(
        orders_command(*arguments),
        cwd=cwd,
        env=environment(**env),
        stdin=subprocess.DEVNULL,
        stdout=output,
        stderr=output,
        text=True,
    )


def run_orders(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] = {}, seconds: float = 60.0
) -> subprocess.CompletedProcess[str]:
    """Run `orders ...` to its end."""
    return wait_for_end(start_orders(*arguments, cwd=cwd, env=env), seconds)


def invoke_orders(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] = {}
) -> subprocess.CompletedProcess[str]:
    """Run `orders ...` to its end in this process, also from several threads. A process would take a second to start.

    Raises what the command does not catch, which a process would end with.
    """
    directory = cwd or Path.cwd()
    # Loggers would keep the standard output of this run, which is closed after it.
    keep_logs = patch("cli.projection_admin.admin.configure_logs")
    with _one_at_a_time, chdir(directory), _modules_left_out(directory), keep_logs:
        given = {"DATABASE_URL": None, "REDIS_URL": None, "COLUMNS": "200", **env}
        result = CliRunner().invoke(app, arguments, env=given)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return subprocess.CompletedProcess(["orders", *arguments], result.exit_code, result.stdout, result.stderr)


@contextmanager
def _modules_left_out(directory: Path) -> Iterator[None]:
    """What is imported from a directory that a test made is not there for the next one."""
    before, path = {*sys.modules}, [*sys.path]
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:] = path
        for name in {*sys.modules} - before:
            file = getattr(sys.modules[name], "__file__", None)
            if file is not None and Path(file).parent == directory != REPOSITORY:
                del sys.modules[name]


def wait_for_end(process: subprocess.Popen[str], seconds: float = 60.0) -> subprocess.CompletedProcess[str]:
    """What a process with pipes printed, and its exit code. Kills it after `seconds`."""
    try:
        stdout, stderr = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)


def shown_on_a_terminal(*arguments: str, cwd: Path | None = None, env: Mapping[str, str] = {}) -> str:
    """Everything that `orders ...` writes to a terminal of 120 columns. Asserts that it succeeds."""
    controller, terminal = pty.openpty()
    process = subprocess.Popen(
        orders_command(*arguments),
        cwd=cwd,
        env=environment(TERM="xterm", NO_COLOR="1", **{"COLUMNS": "120", **env}),
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
    )
    os.close(terminal)
    shown = b""
    with os.fdopen(controller, "rb", buffering=0) as screen, suppress(OSError):  # Linux raises it at the end
        while chunk := screen.read(4096):
            shown += chunk
    assert process.wait() == 0, shown.decode()
    return shown.decode()
