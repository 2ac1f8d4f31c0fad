"""Why a command ends without having done what it was asked."""

from __future__ import annotations

from typing import ClassVar

INTERRUPTED = 130  # the exit code that a shell reports for a program that Ctrl-C ended


class CommandFailed(Exception):
    """The command cannot be carried out. The user reads the message; the process ends with `exit_code`."""

    exit_code: ClassVar[int] = 1


class BadArgument(CommandFailed):
    """An argument, an option or a setting makes no sense."""

    exit_code = 2
