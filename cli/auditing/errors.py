"""What keeps an audit from being made at all; not a finding about the log."""

from __future__ import annotations


class CannotAudit(Exception):
    """No database, no key, a broken seal file ...; the message says which, for a person."""
