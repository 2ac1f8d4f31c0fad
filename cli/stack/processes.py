"""Operating-system processes: start one that dies with this process, identify one later, stop it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from cli.stack.accounts import Account

LAUNCHER = Path(__file__).with_name("launcher.py")
LOG_BYTES = 16 * 1024 * 1024


def launch(
    command: Sequence[str | Path],
    *,
    log: Path,
    env: Mapping[str, str],
    death_signal: signal.Signals,
    account: Account | None = None,
    directory: Path = Path("/"),
    stdin: bytes = b"",
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own, in `directory`, its output appended to `log`.

    On Linux the kernel sends it `death_signal` when this process dies.
    """
    if threading.current_thread() is threading.main_thread():
        return _launch(command, log, env, death_signal, account, directory, stdin)
    # To the kernel the parent is the *thread* that starts a process: when a worker thread ends, so does its server.
    return _lasting_thread().submit(_launch, command, log, env, death_signal, account, directory, stdin).result()


@cache
def _lasting_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="launcher")


def _launch(
    command: Sequence[str | Path],
    log: Path,
    env: Mapping[str, str],
    death_signal: signal.Signals,
    account: Account | None,
    directory: Path,
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
            cwd=directory,
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


def works_in(pid: int, directory: Path) -> bool:
    """Whether the process `pid` has `directory` as its working directory, or, without /proc, names it."""
    try:
        return Path(f"/proc/{pid}/cwd").readlink() == directory.resolve()
    except PermissionError:
        return False
    except (FileNotFoundError, ProcessLookupError):
        return not Path("/proc/self/stat").exists() and str(directory) in _ps("command", pid)


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
            lines = stream.read(8192).decode(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return "\n".join([line for line in lines if line.strip()][-count:])


def open_log(directory: Path, name: str) -> Path:
    """The log file `name`, rotated where it is large."""
    directory.mkdir(mode=0o700, exist_ok=True)
    log = directory / f"{name}.log"
    log.touch(mode=0o600)
    rotate(log)
    return log


def rotate(log: Path) -> None:
    """Moves what a log of more than `LOG_BYTES` holds to `.log.1`, in place of what that held.

    Its writer keeps the file open, in append mode, and goes on at the beginning. A line that is written between the
    copy and the cut is lost.
    """
    if log.stat().st_size > LOG_BYTES:
        previous = log.with_suffix(".log.1")
        previous.touch(mode=0o600)
        shutil.copyfile(log, previous)
        os.truncate(log, 0)
