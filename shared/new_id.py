"""Ids of commands and events."""

from __future__ import annotations

from uuid import UUID

from asyncpg.pgproto import pgproto
from uuid_utils import uuid7


def new_id() -> UUID:
    """A UUID of version 7: ids sort by when they were made, so an index grows at its end.

    It is of the kind that asyncpg answers with, which is made, written out and sent in a third of the time that the
    standard one takes."""
    return pgproto.UUID(uuid7().bytes)
