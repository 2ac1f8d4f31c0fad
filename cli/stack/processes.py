"""Operating-system processes: start one that dies with this process, identify one later, stop it."""

from __future__ import annotations

import os
import pwd
import signal
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple

LAUNCHER = Path(__file__).with_name("launcher.py")
LOG_BYTES = 16 * 1024 * 1024


class Account(NamedTuple):
    """A user of the operating system."""

    uid: int
    gid: int


def unprivileged_account(directory: Path) -> Account | None:
    """The account for a server that refuses to run as root: the owner of `directory`, else `nobody`. None unless this
    process is root."""
    if os.geteuid() != 0:
        return None
    if directory.exists() and (owner := directory.stat()).st_uid != 0:
        return Account(owner.st_uid, owner.st_gid)
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_uid, entry.pw_gid)


def launch(
    command: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str],
    death_signal: signal.Signals,
    account: Account | None = None,
    stdin: bytes = b"",
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, its output appended to `log`.

    On Linux the kernel sends it `death_signal` when this process dies.
    """
    if threading.current_thread() is threading.main_thread():
        return _launch(command, log, env, death_signal, account, stdin)
    # To the kernel the parent is the *thread* that starts a process: when a worker thread ends, so does its server.
    return _lasting_thread().submit(_launch, command, log, env, death_signal, account, stdin).result()


@cache
def _lasting_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="launcher")


def _launch(
    command: Sequence[str | Path],
    log: Path,
    env: Mapping[str, str],
    death_signal: signal.Signals,
    account: Account | None,
    stdin: bytes,
) -> subprocess.Popen[bytes]:
    uid, gid = account or (-1, -1)
    prefix = [sys.executable, "-I", "-S", LAUNCHER, uid, gid, int(death_signal), os.getpid()]
    with log.open("ab") as output:
        process = subprocess.Popen(
            [str(part) for part in (*prefix, *command)],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=dict(env),
            cwd="/",
            # Ctrl-C in the terminal reaches this process alone, which stops the others in order.
            start_new_session=True,
        )
    assert process.stdin is not None
    try:
        process.stdin.write(stdin)
        process.stdin.close()
    except BrokenPipeError:
        pass  # the process died at once; its exit code says why
    return process


def open_to(account: Account, path: Path, tell: Callable[[str], None]) -> None:
    """Let `account` reach `path`: add the search bit for others to each directory above it that lacks it.

    Nothing else becomes listable or readable. Raises PermissionError where this process may not do that.
    """
    for directory in reversed(path.resolve().parents):
        status = directory.stat()
        if status.st_uid == account.uid or status.st_mode & stat.S_IXOTH:
            continue
        directory.chmod(stat.S_IMODE(status.st_mode) | stat.S_IXOTH)
        tell(f"made {directory} searchable (chmod o+x): PostgreSQL refuses to run as root and needs to pass")


def identity(pid: int) -> str | None:
    """What tells the process `pid` from a later one with the same id; None when there is none, or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        state, started = fields[0], fields[19]
    except FileNotFoundError:
        if Path("/proc/self/stat").exists():
            return None
        return _ps("lstart", pid) or None
    except ProcessLookupError:
        return None
    return None if state in "ZX" else f"started at tick {started}"


def command_line(pid: int) -> str:
    """The arguments of the process `pid`; empty when there is none, or a zombie."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return "" if Path("/proc/self/stat").exists() else _ps("command", pid)


def _ps(column: str, pid: int) -> str:
    """For systems without /proc, such as macOS."""
    listed = subprocess.run(["ps", "-o", f"{column}=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listed.stdout.strip()


def stop_unrelated(pid: int, known_identity: str, sig: signal.Signals, timeout: float) -> bool:
    """Stop a process that is not a child of this one. False when `pid` is not the process of that identity.

    Sends `sig`, and SIGKILL when it has not ended after `timeout` seconds.
    """
    if identity(pid) != known_identity:
        return False
    for attempt in (sig, signal.SIGKILL):
        try:
            os.kill(pid, attempt)
        except ProcessLookupError:
            return True
        deadline = time.monotonic() + timeout
        while identity(pid) == known_identity and time.monotonic() < deadline:
            time.sleep(0.02)
        if identity(pid) != known_identity:
            return True
    return True


def ending(returncode: int) -> str:
    """How a process ended: `exit code 1` or `killed by SIGKILL`."""
    if returncode >= 0:
        return f"exit code {returncode}"
    try:
        return f"killed by {signal.Signals(-returncode).name}"
    except ValueError:
        return f"killed by signal {-returncode}"


def last_lines(log: Path, count: int) -> str:
    """The last `count` non-empty lines of a log file."""
    try:
        with log.open("rb") as stream:
            stream.seek(0, os.SEEK_END)
            stream.seek(max(0, stream.tell() - 8192))
            lines = stream.read().decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join([line for line in lines if line.strip()][-count:])


def open_log(directory: Path, name: str) -> Path:
    """The log file `name`. One larger than 16 MiB is renamed to `.log.1`, replacing the previous one."""
    directory.mkdir(mode=0o700, exist_ok=True)
    log = directory / f"{name}.log"
    if log.exists() and log.stat().st_size > LOG_BYTES:
        log.replace(log.with_suffix(".log.1"))
    log.touch(mode=0o600)
    return log
