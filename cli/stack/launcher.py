"""Become a server process that dies with its parent: `launcher.py UID GID SIGNAL PARENT COMMAND [ARG ...]`.

`cli.stack.processes.launch` runs it as a script. A `preexec_fn` would run Python between fork and exec, which may
deadlock when the parent has threads. `exec` keeps the process id, so the caller's `Popen` is the server itself. UID and
GID of -1 keep the user.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1


def main(argv: list[str]) -> None:
    uid, gid, death_signal, parent = map(int, argv[:4])
    command = argv[4:]
    if uid >= 0:
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)
    # After setuid, because a change of user clears it.
    if death_signal and sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
        if os.getppid() != parent:  # the parent died before prctl
            sys.exit("the parent process is gone")
    for ignored_by_python in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(ignored_by_python, signal.SIG_DFL)
    try:
        os.execv(command[0], command)
    except OSError as error:
        sys.exit(f"cannot run {command[0]}: {error.strerror}")


if __name__ == "__main__":
    main(sys.argv[1:])
