"""What keeps an audit from being made at all; not a finding about the log."""

from __future__ import annotations

from cli.failure import CommandFailed


class CannotAudit(CommandFailed):
    """No database, no key, a broken seal file ...; the message says which. Exit code 1 is for findings."""

    exit_code = 2
