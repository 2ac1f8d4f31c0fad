"""The message that announces a checkpoint: the consistency token of the position that a read model has reached."""

from __future__ import annotations

from typing import NamedTuple

from shared.eventstore.token import ConsistencyToken


def decode(text: bytes) -> ConsistencyToken:
    """Raises `MalformedToken` and `ValueError`."""
    return ConsistencyToken.decode(text.decode())


class WrittenDocument(NamedTuple):
    id: str
    body: str
    version: str


class Written(NamedTuple):
    generation: int
    documents: list[WrittenDocument]


class Announcement(NamedTuple):
    """What the query service still reads; `written` is always None."""

    token: ConsistencyToken
    written: Written | None = None

    @classmethod
    def decode(cls, text: bytes) -> Announcement:
        """Raises `MalformedToken` and `ValueError`."""
        return cls(decode(text))
