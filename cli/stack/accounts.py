"""The operating system's account of an embedded PostgreSQL that root starts: it refuses to run as root.

The account is a user id that no other program of the machine has. It cannot enter directories that are closed to
others, so the server starts within its data directory, and no directory above it has to be opened.
"""

from __future__ import annotations

import os
import pwd
import random
import shutil
import stat
from pathlib import Path
from typing import NamedTuple

WORKING_DIRECTORY = Path("/proc/self/cwd")  # a path to it through no other directory
_IDS = range(61_184, 65_520)  # set aside for users without a name (systemd's "dynamic users")
_CACHE = Path("/var/cache/orders")


class Account(NamedTuple):
    """A user of the operating system."""

    uid: int
    gid: int


def private_account(directory: Path) -> Account | None:
    """The account for the server of `directory`: its owner, else an id that is not in use. None unless this process is
    root."""
    if os.geteuid() != 0:
        return None
    if directory.exists() and (owner := directory.stat()).st_uid not in (0, nobody().uid):
        return Account(owner.st_uid, owner.st_gid)
    named = {entry.pw_uid for entry in pwd.getpwall()}
    uid = random.choice([uid for uid in _IDS if uid not in named])
    return Account(uid, uid)


def nobody() -> Account:
    """An account that has a name, which `initdb` and PostgreSQL's single-user mode want to know."""
    entry = pwd.getpwnam("nobody")
    return Account(entry.pw_uid, entry.pw_gid)


def give(directory: Path, account: Account) -> None:
    """Gives the directory, with all that is in it, to the account."""
    for _, directories, files, opened in os.fwalk(directory):
        for name in (*directories, *files):
            os.chown(name, *account, dir_fd=opened, follow_symlinks=False)
    os.chown(directory, *account, follow_symlinks=False)


def reachable(program: Path) -> Path:
    """The same program where every account can reach it, with its installation: `<package>/pginstall/bin/<program>`, or
    a copy of the package in /var/cache/orders."""
    if all(parent.stat().st_mode & stat.S_IXOTH for parent in program.resolve().parents):
        return program
    package = program.parents[2]
    copy = _CACHE / f"{package.name}-{package.stat().st_mtime_ns}"
    if not copy.exists():
        _copy(package, copy)
    return copy / program.relative_to(package.parent)


def _copy(package: Path, to: Path) -> None:
    _CACHE.mkdir(parents=True, exist_ok=True)
    partial = to.with_name(f"{to.name}.{os.getpid()}")
    for part in (package, package.with_name(f"{package.name}.libs")):
        if part.exists():
            shutil.copytree(part, partial / part.name, symlinks=True)
    for directory in (_CACHE, partial):
        directory.chmod(0o755)
    try:
        partial.rename(to)
    except OSError:  # another process was faster
        shutil.rmtree(partial)
